"""Streamed text: the pieces together are the answer, and no piece has ever to be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import vlm.detokenize
from vlm import IncrementalDetokenizer, Vlm, answer_text
from vlm.detokenize import HALF

MERGES = [("h", "e"), ("Ġ", "he"), ("ð", "Ł"), ("Ģ", "Ģ"), ("ã", "Ģ"), ("é", "Ŀ")]
NUM_IDS = 256 + len(MERGES) + 1
TEXTS = [
    "he sees 3 cubes.",
    "  günstig, 机器人 🤖🦾 ",
    "a\u3000\u3000b\u3000",
    "e\u0301 \U0001f468‍\U0001f469‍\U0001f467",
    " \n ",
]


@pytest.fixture(scope="module")
def byte_vlm(vlm: Vlm) -> Vlm:
    """A model whose tokens are bytes, as Qwen2's: characters come in pieces."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [a + b for a, b in MERGES]
    core = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    assert core.get_vocab_size() == NUM_IDS
    return replace(vlm, tokenizer=PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>"))


@pytest.fixture(scope="module", params=["bytes", "words"])
def any_vlm(request: pytest.FixtureRequest, vlm: Vlm, byte_vlm: Vlm) -> Vlm:
    return byte_vlm if request.param == "bytes" else vlm


def pieces(vlm: Vlm, ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
    """Push ids cut at these places; the last piece is the rest."""
    text = IncrementalDetokenizer(vlm)
    ends = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [*(text.push(ids[a:b]) for a, b in pairwise(ends)), text.flush()]


@pytest.fixture(autouse=True, params=[(64, 8), (4, 2)], ids=["as shipped", "small window"], scope="module")
def window(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm.detokenize.WINDOW", request.param[0])
        patch.setattr("vlm.detokenize.CONTEXT", request.param[1])
        yield


@given(ids=st.lists(st.integers(0, 95)), cuts=st.lists(st.integers(0, 40)))
def test_the_pieces_are_the_answer(any_vlm: Vlm, ids: list[int], cuts: list[int]):
    assert "".join(pieces(any_vlm, ids, cuts)) == answer_text(any_vlm, ids)


@given(ids=st.lists(st.integers(0, NUM_IDS - 1)), cuts=st.lists(st.integers(0, 40)))
def test_the_pieces_of_any_bytes_are_the_answer(byte_vlm: Vlm, ids: list[int], cuts: list[int]):
    """Also of bytes that no text has."""
    assert "".join(pieces(byte_vlm, ids, cuts)) == answer_text(byte_vlm, ids)


@given(
    text=st.text(st.characters(exclude_characters=HALF, exclude_categories=["Cs"])),
    cuts=st.lists(st.integers(0, 40)),
)
def test_no_piece_has_half_a_character(byte_vlm: Vlm, text: str, cuts: list[int]):
    ids = byte_vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    said = pieces(byte_vlm, ids, cuts)
    assert HALF not in "".join(said)
    assert "".join(said[:-1]) == answer_text(byte_vlm, ids)  # whole characters are held back for no one


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_alone(byte_vlm: Vlm, text: str):
    ids = byte_vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    said = pieces(byte_vlm, ids, range(len(ids)))
    assert "".join(said) == text.strip()
    assert all(piece == piece.rstrip() for piece in said)
    assert len(ids) > len(text) or text.isascii()  # the twin: some characters do come in pieces
    assert (HALF in "".join(answer_text(byte_vlm, [id_]) for id_ in ids)) == (not text.isascii())


def test_text_is_said_as_soon_as_it_is_certain(byte_vlm: Vlm):
    text = IncrementalDetokenizer(byte_vlm)
    ids = byte_vlm.tokenizer(" hé  he", add_special_tokens=False)["input_ids"]
    assert [text.push([id_]) for id_ in ids] == ["", "h", "", "é", "", "  he"]
    assert text.flush() == ""


def test_an_end_in_half_a_character_is_told_by_the_rest(byte_vlm: Vlm):
    text = IncrementalDetokenizer(byte_vlm)
    ids = byte_vlm.tokenizer("a 🤖", add_special_tokens=False)["input_ids"][:-1]
    assert text.push(ids) == "a"
    assert text.flush() == f" {HALF}"
    assert text.push([]) == text.flush() == ""


def test_without_holding_back_half_characters_the_pieces_are_wrong(
    byte_vlm: Vlm, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vlm.detokenize.HALF", "")
    ids = byte_vlm.tokenizer("a 🤖", add_special_tokens=False)["input_ids"]
    assert "".join(pieces(byte_vlm, ids, range(len(ids)))) != "a 🤖"


def test_special_tokens_are_not_said(byte_vlm: Vlm):
    text = IncrementalDetokenizer(byte_vlm)
    he = byte_vlm.tokenizer("he", add_special_tokens=False)["input_ids"]
    assert text.push([*he, NUM_IDS - 1, *he]) == "hehe"


def test_a_long_answer_is_decoded_in_windows(any_vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not from its beginning at every token."""
    lengths, decode = list[int](), vlm.detokenize.decoded
    monkeypatch.setattr(
        "vlm.detokenize.decoded", lambda vlm, ids: lengths.append(len(ids)) or decode(vlm, ids)
    )
    ids = [at % 90 for at in range(600)]
    said = pieces(any_vlm, ids, range(600))
    assert "".join(said) == answer_text(any_vlm, ids)
    assert sum(lengths) < 600 * 3 * vlm.detokenize.WINDOW
