"""Damage depth files: blindly, or so that what a parser checks first is right and the damage lies deeper.

Blind damage to a PNG is stopped by its sums; the mutators here repair them and keep lists in order.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from random import Random

from tests.depth.files import chunk

INTERESTING = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 4096, 32_767, 32_768, 65_535, 65_536),
    *(1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
)
Mutator = Callable[[bytes, Random], bytes]


def blind(data: bytes, rng: Random) -> bytes:
    """Flip bits, write numbers, cut out, repeat, insert or cut off, anywhere."""
    if not data:
        return rng.randbytes(8)
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 64))
    number = rng.choice(INTERESTING)
    return rng.choice(
        (
            lambda: data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :],
            lambda: data[:at] + struct.pack(rng.choice("<>") + "I", number) + data[at + 4 :],
            lambda: data[:at] + struct.pack(rng.choice("<>") + "H", number & 0xFFFF) + data[at + 2 :],
            lambda: data[:at] + data[at + length :],
            lambda: data[:at] + data[at : at + length] * 2 + data[at + length :],
            lambda: data[:at] + rng.randbytes(length) + data[at:],
            lambda: data[:at],
        )
    )()


def png(data: bytes, rng: Random) -> bytes:
    """Change, drop, repeat, swap or add chunks, or the pixel stream inside; all sums come out right."""
    chunks = png_chunks(data)
    if len(chunks) < 3:
        return blind(data, rng)
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    match rng.randrange(7):
        case 0:
            chunks[at] = (kind, blind(body, rng))
        case 1:
            chunks[0] = (b"IHDR", _ihdr(chunks[0][1], rng))
        case 2:
            del chunks[at]
        case 3:
            chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
        case 4:
            chunks.insert(rng.randrange(len(chunks) + 1), _any_chunk(rng))
        case 5:
            other = rng.randrange(len(chunks))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        case _:
            chunks = [
                (kind, _restream(body, rng)) if kind == b"IDAT" else (kind, body) for kind, body in chunks
            ]
    return data[:8] + b"".join(chunk(kind, body) for kind, body in chunks)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return what can be read as chunks."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _ihdr(body: bytes, rng: Random) -> bytes:
    fields = list(struct.unpack(">IIBBBBB", body[:13].ljust(13, b"\0")))
    field = rng.randrange(7)
    limit = 1 << 32 if field < 2 else 256
    fields[field] = rng.choice((fields[field] + rng.choice((-1, 1)), rng.choice(INTERESTING))) % limit
    return struct.pack(">IIBBBBB", *fields)


def _any_chunk(rng: Random) -> tuple[bytes, bytes]:
    kind = rng.choice(
        (b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"acTL", b"fcTL", b"IDAT")
    )
    head = rng.choice((b"", b"a\0\0", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"))
    return kind, head + rng.choice((rng.randbytes(rng.randrange(40)), zlib.compress(bytes(1 << 16))))


def _restream(body: bytes, rng: Random) -> bytes:
    try:
        return zlib.compress(blind(zlib.decompress(body), rng), rng.randrange(10))
    except zlib.error:
        return body


def npy(data: bytes, rng: Random) -> bytes:
    """Write other words and numbers into the header, or another length of it."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header, body = data[10:end], data[end:]
    words = [match.span() for match in re.finditer(rb"\d+|'[^']*'|True|False|[(),{}:]", header)]
    if not words or rng.random() < 0.2:
        return data[:10] + blind(header, rng) + body
    start, stop = rng.choice(words)
    numbers = [str(number).encode() for number in INTERESTING]
    word = rng.choice(
        (*numbers, b"-1", b"'<f2'", b"'>i4'", b"'|O'", b"'<U9'", b"True", b"None", b"(" * 90, b"1e9")
    )
    header = header[:start] + word + header[stop:]
    return data[:8] + struct.pack("<H", len(header)) + header + body


def tiff(data: bytes, rng: Random) -> bytes:
    """Change one field of one directory entry, the directory's place, or where it says the next page is."""
    order = "<" if data[:2] == b"II" else ">"
    number = rng.choice(INTERESTING)
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        at = start + 2 + 12 * rng.randrange(count)
        tag, kind, many, value = struct.unpack_from(order + "HHII", data, at)
    except (struct.error, ValueError):
        return blind(data, rng)
    fields = rng.choice(
        (
            (tag, kind, many, number),
            (tag, kind, many, max(0, value + rng.choice((-1, 1, -16, 16)))),
            (tag, kind, number, value),
            (tag, rng.randrange(14), many, value),
            (rng.choice((*range(254, 342), 50_000)), kind, many, value),
        )
    )
    if rng.random() < 0.1:
        at, packed = start + 2 + 12 * count, struct.pack(order + "I", number)
    else:
        packed = struct.pack(order + "HHII", *fields)
    return data[:at] + packed + data[at + len(packed) :]


def jpeg(data: bytes, rng: Random) -> bytes:
    """Change, drop, repeat or swap segments, or put markers into coded data; the end marker stays."""
    marks = [match.start() for match in re.finditer(rb"\xff[\x01-\xfe]", data)]
    if len(marks) < 4:
        return blind(data, rng)
    parts = [data[start:stop] for start, stop in zip(marks, [*marks[1:], len(data)], strict=True)]
    at, other = rng.randrange(1, len(parts)), rng.randrange(1, len(parts))
    match rng.randrange(6):
        case 0:
            del parts[at]
        case 1:
            parts.insert(other, parts[at])
        case 2:
            parts[at], parts[other] = parts[other], parts[at]
        case 3:
            parts[at] = parts[at][:4] + blind(parts[at][4:], rng)
        case 4:
            parts[at] = parts[at][:1] + bytes((rng.randrange(0xC0, 0xFF),)) + parts[at][2:]
        case _:
            inside = rng.randrange(len(parts[at]) + 1)
            parts[at] = parts[at][:inside] + bytes((0xFF, rng.randrange(0xC0, 0xFF))) + parts[at][inside:]
    return b"".join(parts)
