"""Compile a JSON schema into a grammar that answers of one model follow.

Compiling is bounded, in size and in work. What a model of whole words could never write is refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from vlm.guide import Guide, Spellings, TokenGuide, WordGuide
from vlm.model import Vlm
from vlm.schema_bounds import Schema, check_bounds, invalid, nodes
from vlm.vocabulary import tokenizer_of

LIMITS = LLParserLimits(
    initial_lexer_fuel=400_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""Compiling takes at most some ten milliseconds, and a token a few."""
JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
PLAIN = "%llguidance {}\nstart: %json "
"""The first line says whose grammar it is: other libraries know %json too, and give it another meaning."""
OWN_WORDS = '%llguidance {"no_forcing": true}\nstart: %json '
"""Lets words be chosen where the letters of several begin alike, which are then forced."""
UNWRITABLE = ("pattern", "patternProperties", "format")
"""What a model of whole words has no words for."""
ANY_OBJECT: Schema = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
"""The object that a model of whole words writes where any would do: it can name no fields."""
BOOLEANS = {"yes": b"true", "no": b"false"}


@dataclass(frozen=True, eq=False)
class Grammar:
    """A compiled schema; `start` guides one answer."""

    start: Callable[[], Guide]


@dataclass(frozen=True, eq=False)
class TokenGrammar(Grammar):
    """A compiled schema for a model whose tokens can spell every text; other engines can keep to it too.

    text: what an engine that has llguidance compiles.
    """

    start: Callable[[], TokenGuide]
    text: str


def compile_schema(vlm: Vlm, schema: Schema) -> Grammar:
    """Compile a JSON schema, with references inside itself only. {} and {"type": "object"} are any object.

    Raises VlmError (invalid_schema).
    """
    check_bounds(schema)
    vocabulary = vlm.vocabulary
    if vocabulary.matching is not None:
        text = _text(schema or {"type": "object"}, PLAIN)
        matcher = _compile(text, vocabulary.matching)
        return TokenGrammar(lambda: TokenGuide(matcher.deep_copy(), vocabulary, vlm.eos_token_ids), text)
    _check_writable(schema)
    spellings = _spellings(vlm, schema)
    whole = _all_required(ANY_OBJECT if dict(schema) in ({}, {"type": "object"}) else schema)
    matcher = _compile(_text(whole, OWN_WORDS), tokenizer_of(spellings.strings))
    return Grammar(lambda: WordGuide(matcher.deep_copy(), spellings, vlm.eos_token_ids))


def _text(schema: Schema, prefix: str) -> str:
    return prefix + json.dumps({**schema, "x-guidance": JSON_OPTIONS})


def _compile(grammar: str, tokenizer: LLTokenizer) -> LLMatcher:
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    first = matcher.deep_copy()
    first.compute_bitmask()  # some of the work of compiling waits for the first mask
    for one in (matcher, first):
        if one.is_error():
            raise invalid(_reason(one.get_error()))
    return matcher


def _reason(error: str) -> str:
    """Say in our own words why the library refuses a schema; only names of keywords are repeated."""
    if keywords := re.search(r"[Uu]nimplemented keys: \[([^\]]*)\]", error):
        names = [name for name in re.findall(r"\"(\w{1,32})\"", keywords[1])]
        return f"it uses {', '.join(names[:8])}, which this server cannot enforce"
    if re.search(r"unsatisfiable", error, re.IGNORECASE):
        return "nothing can match it"
    if re.search(r"too (big|large|complex|many)|limit|fuel|exceed", error, re.IGNORECASE):
        return "it is too complex"
    if "$ref" in error or "pointer" in error.lower():
        return "a reference in it leads to nothing inside the schema"
    return "it is not a JSON schema that this server can enforce"


def _check_writable(schema: Schema) -> None:
    for node in nodes(schema):
        for keyword in UNWRITABLE:
            if isinstance(node.get(keyword), str | Mapping):
                raise invalid(f"it uses {keyword}, which a model of whole words cannot write")


def _all_required(schema: Any) -> Any:
    """Require every property, so that a model that cannot name fields fills all of them in order."""
    if isinstance(schema, list):
        return [_all_required(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    whole = {name: _all_required(value) for name, value in schema.items()}
    properties, required = schema.get("properties"), schema.get("required", [])
    names_only = isinstance(required, list) and all(isinstance(name, str) for name in required)
    if isinstance(properties, Mapping) and names_only:  # anything else is refused when it is compiled
        whole["required"] = list(dict.fromkeys([*required, *properties]))
    return whole


def _spellings(vlm: Vlm, schema: Schema) -> Spellings:
    """Return what the words of a model may stand for in a schema.

    A word stands for itself, for an enumerated value that the tokenizer reads as this word ("Left"), and yes
    and no for true and false, unless the model has those words.
    """
    spelled = vlm.vocabulary.spelled
    strings: dict[bytes, int] = {}
    first: dict[int, int] = {}
    later: dict[int, int] = {}

    def add(string: bytes, table: dict[int, int], word: int) -> None:
        table.setdefault(strings.setdefault(string, len(strings)), word)

    for word, string in enumerate(spelled):
        if string and word not in vlm.eos_token_ids:
            add(string, first, word)
            add(b" " + string, later, word)
    for value in _enumerated(schema):
        for at, part in enumerate(value.split()):
            word = _word(vlm, part)
            if word is None or value.split() != value.split(" "):
                raise invalid(f"an enumerated value is not made of words of this model, such as {_some(vlm)}")
            add(part.encode() if at == 0 else b" " + part.encode(), first if at == 0 else later, word)
    for name, string in BOOLEANS.items():
        if string not in spelled and name.encode() in spelled:
            add(string, first, spelled.index(name.encode()))
    for byte in range(256):
        strings.setdefault(bytes([byte]), len(strings))
    return Spellings(tuple(strings), first, later, len(spelled))


def _word(vlm: Vlm, text: str) -> int | None:
    """Return the one token that a text is, in lower case if need be; None if there is no such."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # half a surrogate pair is no text
        return None
    for spelling in (text, text.lower()):
        ids = vlm.tokenizer(spelling, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and vlm.vocabulary.spelled[ids[0]]:
            return ids[0]
    return None


def _some(vlm: Vlm) -> str:
    words = [word.decode() for word in vlm.vocabulary.spelled if word.isalpha() and len(word) > 2]
    return ", ".join(words[:3])


def _enumerated(schema: Schema) -> Iterator[str]:
    """Yield the texts and numbers that a schema lets the model choose from."""
    for node in nodes(schema):
        values = node.get("enum")
        if isinstance(values, list) and len(values) > 1:
            chosen = (
                one for one in values if isinstance(one, str | int | float) and not isinstance(one, bool)
            )
            yield from (one if isinstance(one, str) else json.dumps(one) for one in chosen)
