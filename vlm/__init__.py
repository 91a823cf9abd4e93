"""Vision-language models with token merging inside: load, preprocess, encode, prompt, generate.

`tosa_encode` does the same for a vision transformer of timm or transformers alone (`vlm.hosts`).
Every function takes the loaded `Vlm` and values, and returns a value; nothing is kept on the model, so one
model serves any number of threads with different plans. Depth arrives as ready-made spatial tokens.
"""

from vlm.decoding import Decoding, FinishReason, Row, require_room
from vlm.detokenize import TextSoFar
from vlm.generate import Generation, features, generate
from vlm.hosts import Block, Host, adapt
from vlm.load import load_shape, load_vlm
from vlm.model import ImageSettings, Vlm, VlmError, settle
from vlm.preprocess import pixel_values
from vlm.prompt import Role, Turn, answer_text, chat_ids, prompt_ids
from vlm.sampling import GenerationParams
from vlm.vision import encode, encoder_shape, feature_map, tosa_encode

__all__ = [
    "Block",
    "Decoding",
    "FinishReason",
    "Generation",
    "GenerationParams",
    "Host",
    "ImageSettings",
    "Role",
    "Row",
    "TextSoFar",
    "Turn",
    "Vlm",
    "VlmError",
    "adapt",
    "answer_text",
    "chat_ids",
    "encode",
    "encoder_shape",
    "feature_map",
    "features",
    "generate",
    "load_shape",
    "load_vlm",
    "pixel_values",
    "prompt_ids",
    "require_room",
    "settle",
    "tosa_encode",
]
