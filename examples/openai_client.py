"""Ask a running service with the official openai client: a question, depth with merging, a stream.

pip install openai; tosa-vqa serve; python examples/openai_client.py [http://127.0.0.1:8000/v1]
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import openai

FRAME = Path(__file__).parent / "frames" / "room-1"
QUESTION = "what colour is the cylinder ?"


def main(url: str) -> None:
    """Print three answers about one RGB-D frame."""
    client = openai.OpenAI(base_url=url, api_key="none")  # any key, unless the service requires one
    model = client.models.list().data[0].id
    image = {"type": "image_url", "image_url": {"url": data_uri(FRAME / "rgb.png")}}
    depth = {"type": "depth_url", "depth_url": {"url": data_uri(FRAME / "depth.png")}}  # ours, not OpenAI's
    text = {"type": "text", "text": QUESTION}

    # 1. A plain question, as with any OpenAI-compatible service.
    plain: list[Any] = [{"role": "user", "content": [image, text]}]
    answer = client.chat.completions.create(model=model, messages=plain, max_tokens=16)
    print(f"no merging: {in_words(answer)}")

    # 2. Depth right behind its image, and a quarter of the visual tokens; extra fields go into extra_body.
    steered: list[Any] = [{"role": "user", "content": [image, depth, text]}]
    options = {"merge": {"method": "tosa", "keep_ratio": 0.25}, "depth": {"scale": 1000}}
    answer = client.chat.completions.create(model=model, messages=steered, max_tokens=16, extra_body=options)
    print(f"tosa:       {in_words(answer)}")

    # 3. A streamed answer; the last chunk reports merging and timings.
    chunks = client.chat.completions.create(
        model=model,
        messages=steered,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=options,
    )
    print("streamed:   ", end="")
    for chunk in chunks:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f" ({chunk.usage.total_tokens} tokens)")


def data_uri(file: Path) -> str:
    """Encode a file as a data URL in a content part."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def in_words(answer: Any) -> str:
    """Format the answer, the token counts and the latency."""
    merge, timings = answer.merge, answer.timings_ms
    tokens = f"{merge['tokens_in']} -> {merge['tokens_out']} visual tokens"
    return f"{answer.choices[0].message.content} ({tokens}, {timings['total']:.0f} ms)"


if __name__ == "__main__":
    main(*sys.argv[1:] or ["http://127.0.0.1:8000/v1"])
