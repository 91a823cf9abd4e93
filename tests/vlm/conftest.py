"""A tiny random LlavaOnevision checkpoint, saved as a real one would be and loaded through load_vlm."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.vlm.families import CASES, write_family
from tosa import MergeSpec, Tokens, make_plan, spatial_tokens
from vlm import Vlm, encode, features, load_vlm, pixel_values, prompt_ids

SPECIAL = ["<pad>", "<unk>", "<image>", "<video>", "<|im_start|>", "<|im_end|>"]
WORDS = ["user", "assistant", "how", "many", "cubes", "?", "the", "red", "one", "is", "left", "of"]
VOCABULARY = 96
MERGES = [("l", "e"), ("le", "f"), ("lef", "t"), ("Ġ", "t"), ('"', ":"), ("r", "u")]
BYTE_VOCABULARY = len(SPECIAL) + 256 + len(MERGES) + 2
"""With two rows of logits that no token has, as real checkpoints have."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] if part['type'] == 'image' %}<image> {% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}<video> {% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}\n{% endfor %}{% endfor %}"
)


def write_checkpoint(
    folder: Path,
    image_size: int = 56,
    heads: int = 2,
    feature_layer: int | list[int] = -1,
    chat_template: str | None = CHAT_TEMPLATE,
    max_tokens: int = 512,
    seed: int = 0,
    byte_level: bool = False,
    language_heads: int = 2,
) -> Path:
    """Write a checkpoint. byte_level: its tokens are bytes, which can spell every text, not words."""
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=heads,
            image_size=image_size,
            patch_size=14,
            vision_use_head=False,
        ).to_dict(),
        text_config=Qwen2Config(
            vocab_size=BYTE_VOCABULARY if byte_level else VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=language_heads,
            num_key_value_heads=1,
            max_position_embeddings=max_tokens,
            initializer_range=0.4,
            bos_token_id=None,
            eos_token_id=SPECIAL.index("<|im_end|>"),
            pad_token_id=0,
        ).to_dict(),
        image_token_index=SPECIAL.index("<image>"),
        video_token_index=SPECIAL.index("<video>"),
        vision_feature_layer=feature_layer,
        image_grid_pinpoints=[[image_size, 2 * image_size], [2 * image_size, image_size]],
    )
    config.default_views = "single"
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config.eos_token_id = SPECIAL.index("<|im_end|>")
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    _write_tokenizer(folder, chat_template, _byte_tokenizer() if byte_level else _word_tokenizer())
    preprocessor = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "size": {"height": image_size, "width": image_size},
        "image_grid_pinpoints": config.image_grid_pinpoints,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "rescale_factor": 1 / 255,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def _word_tokenizer() -> Tokenizer:
    words = [*SPECIAL, *WORDS]
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return core


def _byte_tokenizer() -> Tokenizer:
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    core = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core


def _write_tokenizer(folder: Path, chat_template: str | None, core: Tokenizer) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<image>", "<video>", "<|im_start|>"],
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint this test may damage."""
    return lambda **options: write_checkpoint(tmp_path / "checkpoint", **options)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Vlm]:
    """Load a checkpoint with these options, one shared model per set of options."""
    loaded: dict[str, Vlm] = {}

    def load(**options: object) -> Vlm:
        key = repr(sorted(options.items()))
        if key not in loaded:
            loaded[key] = load_vlm(write_checkpoint(tmp_path_factory.mktemp("vlm"), **options))  # type: ignore[arg-type]
        return loaded[key]

    return load


@pytest.fixture(scope="session")
def vlm(load: Callable[..., Vlm]) -> Vlm:
    return load()


@dataclass(frozen=True, eq=False)
class Member:
    """One family's checkpoint: as we load it, and as transformers does."""

    name: str
    vlm: Vlm
    folder: Path

    @cached_property
    def theirs(self) -> Any:
        kind = getattr(transformers, CASES[self.name].model_class)
        return kind.from_pretrained(self.folder, dtype=torch.float32).eval()

    @cached_property
    def processor(self) -> Any:
        return transformers.AutoProcessor.from_pretrained(self.folder)


@pytest.fixture(scope="session")
def member(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Member]:
    """Load a checkpoint of a family, the same one for all tests."""

    @cache
    def member(name: str, real: bool = False) -> Member:
        folder = write_family(tmp_path_factory.mktemp(name), name, real)
        return Member(name, load_vlm(folder), folder)

    return member


@pytest.fixture(scope="session")
def sample_images() -> list[Image.Image]:
    pixels = torch.randint(
        0, 256, (3, 56, 56, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return [Image.frombytes("RGB", (56, 56), bytes(frame.flatten().tolist())) for frame in pixels]


@pytest.fixture(scope="session")
def run_tower() -> Callable[[Vlm, Tensor, MergeSpec], Tokens]:
    """Encode pixels with a spec, with random depth bins as spatial tokens."""

    def run_tower(vlm: Vlm, pixels: Tensor, spec: MergeSpec) -> Tokens:
        plan = make_plan(spec, vlm.shape)
        rows, columns = plan.shape.grid
        z = torch.randint(0, rows, (len(pixels), rows, columns), generator=torch.Generator().manual_seed(1))
        return encode(vlm.tower, pixels, plan, spatial_tokens(z))

    return run_tower


@pytest.fixture(scope="session")
def read(run_tower: Callable[..., Tokens]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Take a request as far as its prompt and the features for it: every step, in order."""

    def read(
        vlm: Vlm, images: Sequence[Image.Image], question: str, spec: MergeSpec
    ) -> tuple[Tensor, Tensor]:
        plan = make_plan(spec, vlm.shape)
        ids = prompt_ids(vlm, question, [plan.tokens_out] * len(images))
        with torch.inference_mode():
            tokens = run_tower(vlm, pixel_values(vlm, images), spec)
        return ids, features(vlm, tokens)

    return read
