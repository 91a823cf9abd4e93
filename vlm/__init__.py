"""Vision-language models with token merging inside: load, preprocess, encode, prompt, generate.

Every function takes the loaded `Vlm` and values, and returns a value; nothing is kept on the model, so one
model serves any number of threads with different plans. Depth arrives as ready-made spatial tokens.
"""

from vlm.batch import answer_batch
from vlm.device import settle
from vlm.generate import Generation, GenerationParams, Prefill, features, generate, prefill
from vlm.load import load_vlm
from vlm.model import ImageSettings, Vlm, VlmError
from vlm.preprocess import pixel_values
from vlm.prompt import prompt_ids
from vlm.vision import encode, encoder_shape

__all__ = [
    "Generation",
    "GenerationParams",
    "ImageSettings",
    "Prefill",
    "Vlm",
    "VlmError",
    "answer_batch",
    "encode",
    "encoder_shape",
    "features",
    "generate",
    "load_vlm",
    "pixel_values",
    "prefill",
    "prompt_ids",
    "settle",
]
