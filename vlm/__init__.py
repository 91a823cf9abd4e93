"""Vision-language models with token merging inside: load, preprocess, encode, prompt, generate.

`tosa_encode` does the same for a vision transformer of timm or transformers alone (`vlm.adapters`).
Every function takes the loaded `Vlm` and values, and returns a value; nothing is kept on the model, so one
model serves any number of threads with different plans. Depth arrives as ready-made spatial tokens.
"""

from importlib.util import find_spec

_NEEDED = ("huggingface_hub", "llguidance", "numpy", "PIL", "safetensors", "torchvision", "transformers")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:  # said once and here, before something deep inside fails
    raise ModuleNotFoundError(
        f"vlm needs {', '.join(_missing)}: pip install 'tosa-vqa[vlm]'", name=_missing[0]
    )

from vlm.adapters import Block, ViTAdapter, adapt
from vlm.classify import classify
from vlm.decoding import Decoding, FinishReason, GeneratedSequence, require_room, unspellable
from vlm.detokenize import IncrementalDetokenizer
from vlm.families import FAMILIES, VIEWS, Box, Layout, Spelled, View, Views, Visual
from vlm.generate import Generation, features, generate
from vlm.load import load_shape, load_vlm
from vlm.model import ImageSettings, Vlm, VlmError, synchronize
from vlm.patch import Patch, patch
from vlm.preprocess import pixel_values
from vlm.prompt import Role, Turn, answer_text, chat_ids, prompt_ids
from vlm.sampling import MAX_TOP_LOGPROBS, GenerationParams, TokenLogprob
from vlm.throughput import Throughput, benchmark
from vlm.vision import encode, feature_map, tosa_encode
from vlm.visuals import (
    Encoded,
    encode_views,
    layouts,
    plan_views,
    reduce_views,
    saves,
    shape_of,
    spell,
    view_pixels,
    visual_of,
)

__all__ = [
    "FAMILIES",
    "MAX_TOP_LOGPROBS",
    "VIEWS",
    "Block",
    "Box",
    "Decoding",
    "Encoded",
    "FinishReason",
    "GeneratedSequence",
    "Generation",
    "GenerationParams",
    "ImageSettings",
    "IncrementalDetokenizer",
    "Layout",
    "Patch",
    "Role",
    "Spelled",
    "Throughput",
    "TokenLogprob",
    "Turn",
    "ViTAdapter",
    "View",
    "Views",
    "Visual",
    "Vlm",
    "VlmError",
    "adapt",
    "answer_text",
    "benchmark",
    "chat_ids",
    "classify",
    "encode",
    "encode_views",
    "feature_map",
    "features",
    "generate",
    "layouts",
    "load_shape",
    "load_vlm",
    "patch",
    "pixel_values",
    "plan_views",
    "prompt_ids",
    "reduce_views",
    "require_room",
    "saves",
    "shape_of",
    "spell",
    "synchronize",
    "tosa_encode",
    "unspellable",
    "view_pixels",
    "visual_of",
]
