"""Find a checkpoint and read all that it says of itself, without its weights; refuse what cannot run.

Only safetensors weights are loaded, with code of the installed transformers; no code of a checkpoint is run.
transformers takes seconds to import, so that is left to the functions that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tosa import EncoderShape
from vlm.checkpoint_files import CheckpointReader
from vlm.families import VIEWS, Family, Views, family_class
from vlm.families.agreement import TRIED_SIZE, Disagreement
from vlm.model import ImageSettings, VlmError
from vlm.quantised import quantisation, require_packages
from vlm.refused import require_family
from vlm.templates import NoTemplate, chat_template, shows_videos

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

EMBEDDED = {"room-tiny": Path(__file__).parent / "checkpoints" / "room-tiny"}
READER = CheckpointReader(EMBEDDED, ("*.json", "*.jinja", "*.txt"), VlmError)
DEFAULT_VIEWS = "default_views"
"""What config.json may say of the views that a checkpoint was trained on: one of VIEWS."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
VOCABULARIES = ("tokenizer.json", "vocab.json")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Description:
    """What the files of a checkpoint say, its weights apart. raw: config.json as it is written.

    quantised: the `quant_method` of its weights, None if they are not quantised.
    """

    source: str
    folder: Path
    raw: Mapping[str, Any]
    config: PreTrainedConfig
    family: Family
    shape: EncoderShape
    settings: ImageSettings
    tokenizer: PreTrainedTokenizerFast
    chat_template: str
    default_views: Views
    quantised: str | None


def describe(source: str, folder: Path) -> Description:
    """Read the settings of a checkpoint that was found. Raises VlmError as `load_vlm`."""
    raw, config = _read_config(source, folder)
    quantised = _prefixed(source, lambda: _readable(raw))
    family = _family(source, folder, config)
    _require_one(source, folder, PROCESSORS, "no image processor", "the model that it was made from")
    shape = _shape(source, family)
    settings = READER.or_broken(source, lambda: family.settings)
    _require_agreement(source, family)
    tokenizer = _load_tokenizer(source, folder)
    family.tokenizer = tokenizer
    _require_image_token(source, family)
    template = _chat_template(source, folder, tokenizer, family)
    if not shows_videos(tokenizer, template, family.placeholders.get("video")):
        family.no_videos = "the chat template of this model shows no videos"
    return Description(
        source=source,
        folder=folder,
        raw=raw,
        config=config,
        family=family,
        shape=shape,
        settings=settings,
        tokenizer=tokenizer,
        chat_template=template,
        default_views=_default_views(source, config),
        quantised=quantised,
    )


def load_shape(id_or_path: str | Path) -> EncoderShape:
    """Read the shape of a checkpoint's vision tower, without its weights. Raises VlmError as `load_vlm`."""
    source = str(id_or_path)
    folder = READER.find(source)[0]
    return _shape(source, _family(source, folder, _read_config(source, folder)[1]))


def _shape(source: str, family: Family) -> EncoderShape:
    return _prefixed(source, lambda: READER.or_broken(source, lambda: family.shape(family.whole(TRIED_SIZE))))


def _require_agreement(source: str, family: Family) -> None:
    """Refuse a checkpoint whose image processor makes other views than its config says."""

    def compare() -> None:
        try:
            family.require_agreement()
        except Disagreement as error:
            raise READER.broken(source, str(error)) from None

    READER.or_broken(source, compare)


def _require_image_token(source: str, family: Family) -> None:
    if family.tokenizer.convert_ids_to_tokens(family.image_token_id) is None:
        reason = f"config.json says image token {family.image_token_id}, which its tokenizer does not have"
        raise READER.broken(source, f"{reason}: take both from one model")


def _read_config(source: str, folder: Path) -> tuple[dict[str, Any], PreTrainedConfig]:
    raw = READER.read_json(source, folder / "config.json")
    kind = require_family(source, raw)
    from transformers import CONFIG_MAPPING

    return raw, READER.or_broken(source, lambda: CONFIG_MAPPING[kind].from_dict(dict(raw)))


def _readable(raw: Mapping[str, Any]) -> str | None:
    name = quantisation(raw)
    if name is not None:
        require_packages(name)
    return name


def _family(source: str, folder: Path, config: PreTrainedConfig) -> Family:
    """Describe the checkpoint; refuse what the family does not run."""
    make = family_class(config.model_type)
    return _prefixed(source, lambda: READER.or_broken(source, lambda: make(config, folder)))


def _prefixed(source: str, read: Callable[[], T]) -> T:
    """Put the name of the checkpoint in front of a refusal that lacks it."""
    try:
        return read()
    except VlmError as error:
        if error.code == "broken_checkpoint":
            raise
        raise VlmError(error.code, f"{source} cannot be loaded: {error}", choices=error.choices) from error


def _default_views(source: str, config: PreTrainedConfig) -> Views:
    said = getattr(config, DEFAULT_VIEWS, "auto")
    if said not in VIEWS:
        raise READER.broken(source, f"config.json says {DEFAULT_VIEWS} {said!r}, not {', '.join(VIEWS)}")
    return said


def _load_tokenizer(source: str, folder: Path) -> PreTrainedTokenizerFast:
    _require_one(source, folder, VOCABULARIES, "no fast tokenizer", "the model, saved by AutoTokenizer")
    from transformers import AutoTokenizer

    return READER.or_broken(source, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def _require_one(source: str, folder: Path, names: tuple[str, ...], what: str, origin: str) -> None:
    """Refuse a folder that has none of these files, which can be copied from their origin."""
    if not any((folder / name).is_file() for name in names):
        raise READER.broken(source, f"it has {what} ({' or '.join(names)}): copy it from {origin}")


def _chat_template(source: str, folder: Path, tokenizer: PreTrainedTokenizerFast, family: Family) -> str:
    try:
        return chat_template(folder, tokenizer, family.template)
    except NoTemplate as error:
        raise VlmError("no_chat_template", f"{source} cannot be loaded: {error}") from None
    except Exception as error:  # files that are no JSON, or hold something else
        raise READER.broken(source, f"its chat template cannot be read ({type(error).__name__})") from error
