"""Find the chat template of a checkpoint, in the files and the order in which transformers does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADDITIONAL = "additional_chat_templates"


class NoTemplate(Exception):
    """One sentence on why a checkpoint has no template that can be used."""


def chat_template(folder: Path, tokenizer: Any, own: str | None = None) -> str:
    """Return the template; own: of a family whose prompts have none. Raises NoTemplate.

    That of the processor comes before the tokenizer's, since it knows parts that are images.
    """
    found = _of_processor(folder) or _named(tokenizer.chat_template) or own
    if found is not None:
        return found
    named = sorted(path.stem for path in (folder / ADDITIONAL).glob("*.jinja"))
    if named or isinstance(tokenizer.chat_template, Mapping):
        names = ", ".join(named or sorted(tokenizer.chat_template))
        raise NoTemplate(
            f"it has the chat templates {names} and none is the default: copy one to chat_template.jinja"
        )
    raise NoTemplate(
        "it has no chat template (chat_template.jinja, chat_template.json, processor_config.json or "
        "tokenizer_config.json): copy chat_template.jinja from the model that it was made from"
    )


def shows_videos(tokenizer: Any, template: str, placeholder: str | None) -> bool:
    """Say whether a template writes the placeholder of a video where a turn has one."""
    content = [{"type": "video"}, {"type": "text", "text": "What happens?"}]
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
        )
    except Exception:  # a template is a program of the checkpoint
        return False
    return placeholder is not None and str(text).count(placeholder) == 1


def _of_processor(folder: Path) -> str | None:
    for name in ("processor_config.json", "chat_template.json"):
        path = folder / name
        raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found = _named(raw.get("chat_template"))
        if found is not None:
            return found
    for path in (folder / "chat_template.jinja", folder / ADDITIONAL / "default.jinja"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _named(template: Any) -> str | None:
    """Return the one template, or that of several which is the default."""
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}
    return template.get("default") if isinstance(template, Mapping) else template
