"""Tables that are read from the code: what the methods declare, presets of depth, settings of the process."""

from __future__ import annotations

import json

from bench.tables.markdown import prose, table
from depth import NOTES, PRESETS
from depth.errors import REASONS
from depth.formats.containers import CONTAINERS, RAW
from depth.formats.unread import UNREAD
from service.settings import Settings
from tests.depth.proofs import PROOFS
from tosa import METHODS, MergeMethod
from tosa.methods.options import settings_of


def defaults(method: str) -> str:
    """What a method declares, and its options; from the code."""
    declared = METHODS[method]
    where = {
        "all": "all",
        "first_half": "the first half",
        "one": f"layer {declared.first_layer}, then as needed",
    }
    site = {"before_mlp": "between attention and MLP", "before_block": "at the entry of a layer"}
    rows = [
        ["merges", site.get(declared.site, "nowhere")],
        ["`layers`", where[declared.layers]],
        ["`prop_attn`", "on" if declared.prop_attn else "off"],
        ["needs spatial tokens", _needs_spatial(declared)],
        ["keeps the grid", "yes" if declared.keeps_grid else "no"],
        ["removes at most, per step", _most(declared)],
    ]
    shown = table(["setting", "default"], rows, right=False)
    options = settings_of(declared.options)
    if not options:
        return shown
    lines = [[f"`{one.name}`", f"`{json.dumps(one.default)}`", one.doc] for one in options]
    return f"{shown}\n\n{table(['option', 'default', 'meaning'], lines, right=False)}"


def methods() -> str:
    """All methods on one page, a row each; from the code."""
    rows = [
        [
            f"[`{name}`](methods/{name}.md)" if method.merges else f"`{name}`",
            method.title,
            "" if method.paper is None else f"[{method.paper}](https://arxiv.org/abs/{method.paper})",
            _needs_spatial(method),
            "yes" if method.keeps_grid else "no",
        ]
        for name, method in METHODS.items()
    ]
    return table(["method", "title", "paper", "needs spatial tokens", "keeps the grid"], rows, right=False)


def presets() -> str:
    """Every depth preset: what a value means, what is a hole, and where that is written."""
    rows = [
        [
            f"`{preset.name}`",
            "no unit" if preset.units_per_metre is None else f"{preset.units_per_metre:g}",
            ", ".join(f"{value:g}" for value in (0, *preset.invalid)),
            prose(preset.source),
        ]
        for preset in PRESETS.values()
    ]
    return table(["`depth_preset`", "units per metre", "holes", "source"], rows, right=False)


def depth_notes() -> str:
    """Every note on a depth file, by its code."""
    rows = [[f"`{code}`", prose(sentence)] for code, sentence in NOTES.items()]
    return table(["code", "sentence"], rows, right=False)


def depth_formats() -> str:
    """Every format of depth files that is read, or refused by its name, and the test that proves it."""
    rows = [[one.title, prose(one.about), _proof(one.name)] for one in (*CONTAINERS, RAW)]
    rows += [[title, f"nothing: {prose(REASONS[reason][1])}", _proof(reason)] for reason, title, _ in UNREAD]
    return table(["format", "what is read", "proved by"], rows, right=False)


def _proof(name: str) -> str:
    path, _, test = PROOFS[name].partition("::")
    return f"`{test}` in `{path}`"


def settings() -> str:
    """Every setting of the process, by its environment variable."""
    rows = [
        [
            f"`TOSA_VQA_{name.upper()}`",
            "" if field.default is None else f"`{json.dumps(field.default).strip(chr(34))}`",
            prose(field.description or ""),
        ]
        for name, field in Settings.model_fields.items()
    ]
    return table(["variable", "default", "meaning"], rows, right=False)


def _needs_spatial(method: MergeMethod) -> str:
    if method.needs_spatial:
        return "yes"
    return "no" if method.spatial_option is None else f"if `{method.spatial_option}` is above 0"


def _most(method: MergeMethod) -> str:
    of = "each axis" if method.keeps_grid else "the tokens"
    return f"half of {of}" if method.halves else "all but one"
