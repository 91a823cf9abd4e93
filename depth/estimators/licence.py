"""The licence of a checkpoint: from its model card, corrected where cards are known to be wrong.

Only names are compared; a person has to read the licence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non[-_ ]?commercial|research|academic|amlr", re.I)
# Published as CC-BY-NC-4.0, and as Apple's research licence; cards of copies and of the metric models differ.
KNOWN_NON_COMMERCIAL = re.compile(
    r"depth[-_]?anything[-_]?v2.*[-_](base|large|giant|vit[blg])(?![a-z])|depth[-_]?pro(?![a-z])", re.I
)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the YAML front matter of README.md, empty where there is none that can be read."""
    from huggingface_hub.repocard import metadata_load

    try:
        return metadata_load(folder / "README.md") or {}
    except Exception:  # no file, no text or no YAML: the card gives no licence
        return {}


def licence_of(card: dict[str, Any]) -> str | None:
    """Return what the card names as licence; its own name if that is "other"; None if it names none."""
    licences = _strings(card.get("license"))
    if licences == ["other"]:
        licences = _strings(card.get("license_name")) or licences
    return ", ".join(licences) or None


def why_non_commercial(source: str, card: dict[str, Any]) -> str | None:
    """Return why commercial use is excluded, or None if nothing known excludes it.

    The name of the checkpoint, and of what it was made from, outweighs a card that is silent or permissive.
    """
    licence = licence_of(card)
    if licence is not None and NON_COMMERCIAL.search(licence):
        return f"its licence is {licence}"
    for name in (source, *_strings(card.get("base_model"))):
        if KNOWN_NON_COMMERCIAL.search(name):
            card_says = f"its card says {licence}" if licence else "its card names no licence"
            return f"{name} is known as non-commercial, although {card_says}"
    return None


def _strings(value: Any) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]
