"""Tiny random checkpoints of every family, saved as transformers saves them, with processor and template.

Their special tokens and chat templates are laid out as those of the published checkpoints. `real` gives them
the real sizes of pictures and patches; otherwise both are smaller, with the same remainders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

hf: Any = transformers  # whose classes take more than their signatures say
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
COMMON = ["<pad>", "<s>", "</s>"]
MERGES = [("Ċ", "Ċ"), ("Ġ", "t"), ("Ċ", "Ġ"), ("h", "e"), ("Ġt", "he")]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'video' %}VIDEO{% else %}IMAGE{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}USER: {% for part in message['content'] if part['type'] != 'text' %}"
    "<image>\n{% endfor %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<{{ part['type'] }}>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] | trim }}"
    "{% else %}<start_of_image>{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """How one family is written. named: special tokens by the attribute they have on the tokenizer.

    build(ids, real): the config. processor(tokenizer, real, template): of transformers.
    """

    model_class: str
    named: dict[str, str]
    build: Callable[[dict[str, int], bool], Any]
    processor: Callable[[Any, bool, str | None], Any]
    template: str | None
    others: tuple[str, ...] = ()
    puts_bos: bool = False


def _text(ids: dict[str, int], model_type: str, **more: Any) -> dict[str, Any]:
    return {"model_type": model_type, "vocab_size": len(ids) + 5, **TEXT, **more}


def _siglip(side: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "image_size": side,
        "patch_size": 14,
        "vision_use_head": False,
        **VISION,
        **more,
    }


def _clip(side: int) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "image_size": side,
        "patch_size": 14,
        "projection_dim": 32,
        **VISION,
    }


def _pinpoints(side: int, most: int) -> list[list[int]]:
    return [[side * rows, side * columns] for rows in range(1, most + 1) for columns in range(1, most + 1)]


def _onevision_side(real: bool) -> int:
    return 384 if real else 132


def _onevision(ids: dict[str, int], real: bool) -> Any:
    side = _onevision_side(real)
    return hf.LlavaOnevisionConfig(
        vision_config=_siglip(side),
        text_config=_text(ids, "qwen2", num_attention_heads=2),
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=_pinpoints(side, 6),
    )


def _onevision_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _onevision_side(real)
    size = {"height": side, "width": side}
    mean = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    return hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=_pinpoints(side, 6), **mean),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size, **mean),
        num_image_tokens=(side // 14) ** 2,
        vision_feature_select_strategy="full",
        chat_template=template,
    )


def _llava_side(real: bool) -> int:
    return 336 if real else 112


def _llava(ids: dict[str, int], real: bool) -> Any:
    return hf.LlavaConfig(
        vision_config=_clip(_llava_side(real)),
        text_config=_text(ids, "llama"),
        image_token_index=ids["<image>"],
    )


def _llava_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _llava_side(real)
    return hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


NEXT_SHAPES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def _llava_next(ids: dict[str, int], real: bool) -> Any:
    side = _llava_side(real)
    return hf.LlavaNextConfig(
        vision_config=_clip(side),
        text_config=_text(ids, "mistral"),
        image_token_index=ids["<image>"],
        image_grid_pinpoints=[[side * rows, side * columns] for rows, columns in NEXT_SHAPES],
    )


def _llava_next_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _llava_side(real)
    return hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=[[side * rows, side * columns] for rows, columns in NEXT_SHAPES],
        ),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _paligemma_side(real: bool) -> int:
    return 224 if real else 112


def _paligemma(ids: dict[str, int], real: bool) -> Any:
    return hf.PaliGemmaConfig(
        vision_config=_siglip(_paligemma_side(real), projection_dim=32),
        # The processor adds 1152 tokens for places and segments.
        text_config=_text(ids, "gemma2", head_dim=8, sliding_window=64, vocab_size=len(ids) + 1157),
        image_token_index=ids["<image>"],
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=False,  # random weights that are tied repeat one token
    )


def _paligemma_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _paligemma_side(real)
    images = hf.SiglipImageProcessor(size={"height": side, "width": side})
    images.image_seq_length = (side // 14) ** 2
    return hf.PaliGemmaProcessor(images, tokenizer)


def _gemma_side(real: bool) -> int:
    return 896 if real else 224


def _gemma3(ids: dict[str, int], real: bool) -> Any:
    return hf.Gemma3Config(
        vision_config=_siglip(_gemma_side(real)),
        text_config=_text(ids, "gemma3_text", head_dim=8, sliding_window=64),
        image_token_index=len(ids) + 40,  # beyond the embeddings, as a checkpoint may have it
        mm_tokens_per_image=(_gemma_side(real) // 56) ** 2,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        tie_word_embeddings=False,
    )


def _gemma3_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _gemma_side(real)
    images = hf.Gemma3ImageProcessor(size={"height": side, "width": side})
    return hf.Gemma3Processor(images, tokenizer, template, image_seq_length=(side // 56) ** 2)


def _internvl_side(real: bool) -> int:
    return 448 if real else 112


def _internvl(ids: dict[str, int], real: bool) -> Any:
    side = _internvl_side(real)
    vision = {
        "model_type": "internvl_vision",
        "image_size": [side, side],
        "patch_size": [14, 14],
        "attention_bias": True,
    }
    return hf.InternVLConfig(
        vision_config=vision | VISION,
        text_config=_text(ids, "qwen2"),
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=(side // 28) ** 2,
        downsample_ratio=0.5,
    )


def _internvl_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = _internvl_side(real)
    size = {"height": side, "width": side}
    return hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size, crop_to_patches=False),
        tokenizer,
        hf.InternVLVideoProcessor(size=size),
        image_seq_length=(side // 28) ** 2,
        chat_template=template,
    )


def _idefics3(ids: dict[str, int], real: bool) -> Any:
    vision = {"model_type": "idefics3_vision", "image_size": 364 if real else 84, "patch_size": 14}
    return hf.Idefics3Config(
        vision_config=vision | VISION,
        text_config=_text(ids, "llama"),
        image_token_id=ids["<image>"],
        scale_factor=2,
    )


def _idefics3_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    side = 364 if real else 84
    images = hf.Idefics3ImageProcessor(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})
    return hf.Idefics3Processor(images, tokenizer, image_seq_len=(side // 28) ** 2, chat_template=template)


def _smolvlm(ids: dict[str, int], real: bool) -> Any:
    vision = {"model_type": "smolvlm_vision", "image_size": 512 if real else 128, "patch_size": 16}
    return hf.SmolVLMConfig(
        vision_config=vision | VISION,
        text_config=_text(ids, "llama"),
        image_token_id=ids["<image>"],
        scale_factor=4,
    )


def _smolvlm_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    processing_smolvlm: Any = import_module("transformers.models.smolvlm.processing_smolvlm")
    if processing_smolvlm.num2words is None:  # an optional package of one call, which tests do without
        processing_smolvlm.num2words = {8: "eight", 3: "three"}.get
    side = 512 if real else 128
    most = {"longest_edge": 4 * side}
    images = hf.SmolVLMImageProcessor(size=most, max_image_size={"longest_edge": side})
    sampling = {"max_frames": 64, "fps": 1, "video_size": most}
    videos = hf.SmolVLMVideoProcessor(
        size=most, max_image_size={"longest_edge": side}, video_sampling=sampling
    )
    return hf.SmolVLMProcessor(
        images, tokenizer, videos, image_seq_len=(side // 64) ** 2, chat_template=template
    )


QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
QWEN_TEMPLATE = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
    "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
)


def _qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


QWEN_VISION = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 32,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def _qwen2_5_vl(ids: dict[str, int], real: bool) -> Any:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    return hf.Qwen2_5_VLConfig(
        vision_config={
            "patch_size": 14,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        }
        | QWEN_VISION,
        text_config=_text(ids, "qwen2_5_vl_text", rope_parameters=rope),
        **_qwen_ids(ids),
    )


def _qwen_pixels(real: bool, factor: int) -> dict[str, int]:
    most = 1280 if real else 60
    return {"shortest_edge": 4 * factor**2, "longest_edge": most * factor**2}


def _qwen2_5_vl_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    size = _qwen_pixels(real, 28)
    return hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(size=size, patch_size=14),
        tokenizer,
        hf.Qwen2VLVideoProcessor(size=size, patch_size=14),
        chat_template=template,
    )


def _qwen3_vl(ids: dict[str, int], real: bool) -> Any:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 5e6, "mrope_interleaved": True}
    vision = {
        "patch_size": 16,
        "num_position_embeddings": 2304 if real else 64,
        "deepstack_visual_indexes": [1, 2],
    }
    return hf.Qwen3VLConfig(
        vision_config=vision | QWEN_VISION,
        text_config=_text(ids, "qwen3_vl_text", head_dim=8, rope_parameters=rope),
        **_qwen_ids(ids),
    )


def _qwen3_5(ids: dict[str, int], real: bool) -> Any:
    rope = {
        "rope_type": "default",
        "mrope_section": [2, 1, 1],
        "rope_theta": 1e7,
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.5,
    }
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    layers = ["linear_attention", "full_attention"]
    text = {"linear_num_value_heads": 4, "layer_types": layers, "head_dim": 16, "rope_parameters": rope}
    return hf.Qwen3_5Config(
        vision_config={"patch_size": 16, "num_position_embeddings": 2304 if real else 64} | QWEN_VISION,
        text_config=_text(ids, "qwen3_5_text", **linear, **text),
        **_qwen_ids(ids),
    )


def _qwen3_vl_processor(tokenizer: Any, real: bool, template: str | None) -> Any:
    size = _qwen_pixels(real, 32)
    return hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer,
        hf.Qwen3VLVideoProcessor(size=size, patch_size=16, cap_pixels_per_frame=False),
        chat_template=template,
    )


CHAT = ("<|im_start|>", "<|im_end|>")
IMAGE = {"image_token": "<image>"}
IDEFICS_TOKENS = {
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
CASES = {
    "llava_onevision": Case(
        "LlavaOnevisionForConditionalGeneration",
        IMAGE | {"video_token": "<video>"},
        _onevision,
        _onevision_processor,
        CHATML.replace("IMAGE", "<image>\n").replace("VIDEO", "<video>\n"),
        CHAT,
    ),
    "llava": Case("LlavaForConditionalGeneration", IMAGE, _llava, _llava_processor, VICUNA, puts_bos=True),
    "llava_next": Case(
        "LlavaNextForConditionalGeneration", IMAGE, _llava_next, _llava_next_processor, VICUNA, puts_bos=True
    ),
    "paligemma": Case("PaliGemmaForConditionalGeneration", IMAGE, _paligemma, _paligemma_processor, None),
    "gemma3": Case(
        "Gemma3ForConditionalGeneration",
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        _gemma3,
        _gemma3_processor,
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        puts_bos=True,
    ),
    "internvl": Case(
        "InternVLForConditionalGeneration",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        _internvl,
        _internvl_processor,
        CHATML.replace("IMAGE", "<IMG_CONTEXT>\n").replace("VIDEO", "<video>\n"),
        CHAT,
    ),
    "idefics3": Case(
        "Idefics3ForConditionalGeneration",
        IMAGE | IDEFICS_TOKENS,
        _idefics3,
        _idefics3_processor,
        IDEFICS,
        (*CHAT, *TAGS),
    ),
    "smolvlm": Case(
        "SmolVLMForConditionalGeneration",
        IMAGE | IDEFICS_TOKENS | {"video_token": "<video>"},
        _smolvlm,
        _smolvlm_processor,
        IDEFICS,
        (*CHAT, *TAGS),
    ),
    "qwen2_5_vl": Case(
        "Qwen2_5_VLForConditionalGeneration",
        QWEN_TOKENS,
        _qwen2_5_vl,
        _qwen2_5_vl_processor,
        QWEN_TEMPLATE,
        CHAT,
    ),
    "qwen3_vl": Case(
        "Qwen3VLForConditionalGeneration", QWEN_TOKENS, _qwen3_vl, _qwen3_vl_processor, QWEN_TEMPLATE, CHAT
    ),
    "qwen3_5": Case(
        "Qwen3_5ForConditionalGeneration", QWEN_TOKENS, _qwen3_5, _qwen3_vl_processor, QWEN_TEMPLATE, CHAT
    ),
}


def write_family(folder: Path, name: str, real: bool = False, seed: int = 0, change: Any = None) -> Path:
    """Write a checkpoint of one family. change: called with the config before the model is built."""
    config, end = write_processor(folder, name, real, change)
    torch.manual_seed(seed)
    model = getattr(hf, CASES[name].model_class)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.2)
        model.get_output_embeddings().weight[end] = 0
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    return folder


def end_by_a_token(folder: Path) -> Path:
    """Let answers end by `</s>`, which is never the likeliest either, so that schemas can be kept to."""
    path, end = folder / "generation_config.json", COMMON.index("</s>")
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"eos_token_id": [end, said["eos_token_id"]]}))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][end] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_processor(folder: Path, name: str, real: bool = False, change: Any = None) -> tuple[Any, int]:
    """Write all of a checkpoint of one family but its model. change: called with the config.

    Returns the config, and a row of logits that no token has: its weights make 0, which is never the largest.
    """
    case = CASES[name]
    special = [*COMMON, *case.named.values(), *case.others]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    ids = {word: at for at, word in enumerate(words)}
    config = case.build(ids, real)
    if change is not None:
        change(config)
    tokenizer = _tokenizer(case, ids, config.image_token_id)
    case.processor(tokenizer, real, case.template).save_pretrained(folder)
    return config, len(ids) + 4


def _tokenizer(case: Case, ids: dict[str, int], image_token_id: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer of bytes whose visual token has the id that the config gives it."""
    ids = dict(ids)
    image = case.named.get("context_image_token", case.named.get("image_token", ""))
    if ids[image] != image_token_id:
        ids[image] = image_token_id
    core = Tokenizer(models.BPE(ids, MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if case.puts_bos:
        from tokenizers.processors import TemplateProcessing

        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=case.named
        | {f"other_{at}_token": other for at, other in enumerate(case.others)},
    )


def kinds(name: str) -> Sequence[str]:
    """Return the views that a family can be asked for."""
    from vlm.families import family_class

    return family_class(name).kinds
