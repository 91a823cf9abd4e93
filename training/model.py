"""Architecture and tokenizer of room-tiny, in ordinary Hugging Face classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from evals.rooms import TRAIN, make_scene, questions, render
from training.symbols import WIDTH

IMAGE_PX, PATCH_PX = 384, 16
GRID = IMAGE_PX // PATCH_PX
TOWER_DIM = LANGUAGE_DIM = 192
PAD, UNKNOWN, IMAGE, VIDEO, START, END = "<pad>", "<unk>", "<image>", "<video>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, UNKNOWN, IMAGE, VIDEO, START, END)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}<image>{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ ' ' + part['text'] }}{%- endfor -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>' }}{%- endif -%}"
)


def build_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer over every word RoomQA uses; case and punctuation are dropped.

    more: words behind these, of which those that RoomQA has too are left out.
    """
    words = dict.fromkeys((*SPECIAL, *_words(), *more))
    vocabulary = {word: index for index, word in enumerate(words)}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[?!,;:\"']"), " "),
            normalizers.Replace(Regex(r"\.(?!\d)"), " "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, VIDEO, START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@cache
def _words() -> list[str]:
    return words_of(2500)


def words_of(scenes: int) -> list[str]:
    """Return the words of the questions and answers of the first scenes for training, sorted."""
    words: set[str] = set()
    for seed in TRAIN[:scenes]:
        scene = make_scene(seed)
        for question in questions(scene, render(scene, 96), seed, 16):
            text = f"{question.question} {question.answer}".lower()
            words.update(re.sub(r"[?,]|\.(?!\d)", "", text).split())
    return sorted(words)


def build_vision_config() -> SiglipVisionConfig:
    """SigLIP of 8 layers over 24 x 24 patches."""
    return SiglipVisionConfig(
        hidden_size=TOWER_DIM,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=3,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        hidden_act="gelu_pytorch_tanh",
        vision_use_head=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """LLaVA-OneVision with a SigLIP tower of 8 layers over 24 x 24 patches and a Qwen2 LM of 4 layers."""
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=LANGUAGE_DIM,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.vocab[END],
        pad_token_id=tokenizer.vocab[PAD],
    )
    config = LlavaOnevisionConfig(
        vision_config=build_vision_config().to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.vocab[IMAGE],
        video_token_index=tokenizer.vocab[VIDEO],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[IMAGE_PX, IMAGE_PX]],
        tie_word_embeddings=True,
    )
    config.default_views = "single"  # what it is trained on, read by load_vlm
    return config


def build_model(config: LlavaOnevisionConfig, seed: int) -> LlavaOnevisionForConditionalGeneration:
    torch.manual_seed(seed)
    return LlavaOnevisionForConditionalGeneration(config)


class SymbolCode(nn.Module):
    """Embed symbols [..., WIDTH] for the language model: the projector's target, used only in training."""

    def __init__(self, dim: int = LANGUAGE_DIM) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, dim)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 256), nn.GELU(), nn.Linear(256, dim))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def forward(self, symbols: Tensor) -> Tensor:
        return self.norm(self.linear(symbols) + self.mlp(symbols))


class DenseHeads(nn.Module):
    """Predict the symbols of every patch from the tower's output; used only in training."""

    def __init__(self, dim: int = TOWER_DIM) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out(self.norm(hidden))
