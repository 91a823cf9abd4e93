"""Public checkpoints that the families are written for.

None was downloaded to make this table. Licences are those that the model cards name, and parameters follow
from the bytes of the published weights, as public copies of the cards and lists of files of 2024 to 2026
say them; a comment says where a copy was not found. Read the model's card before use. Visual tokens follow
from the sizes in their configs, by test with checkpoints of the same geometry and random weights.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """One checkpoint. parameters: in thousand millions. related: models that are built on it.

    tokens: of a picture of 640 x 480 px, with the views auto and single.
    """

    id: str
    family: str
    licence: str
    parameters: float
    tokens: tuple[int, int]
    related: str = ""

    @property
    def bfloat16_gb(self) -> float:
        """Return the memory of the weights in bfloat16, in GB."""
        return 2 * self.parameters


# No card of InternVL3-1B-hf was found: that of InternVL3-1B says Apache-2.0, of InternVL3-14B-hf "qwen".
INTERNVL = "not confirmed; InternVL3-1B: Apache-2.0"
APACHE, GEMMA, NVIDIA = "Apache-2.0", "Gemma terms of use", "NVIDIA Open Model License"
ONEVISION, LLAVA, NEXT, ONE_GRID = (2929, 730), (576, 576), (2340, 577), (256, 256)
QWEN2_5, QWEN3 = (391, 391), (300, 300)
KNOWN = (
    KnownModel("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava_onevision", APACHE, 0.9, ONEVISION),
    KnownModel("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision", APACHE, 8.0, ONEVISION),
    KnownModel("llava-hf/llava-1.5-7b-hf", "llava", "Llama 2 Community License", 7.1, LLAVA),
    KnownModel("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", APACHE, 7.6, NEXT),
    KnownModel("google/paligemma2-3b-mix-224", "paligemma", GEMMA, 3.0, ONE_GRID, "base of pi0: PaliGemma"),
    KnownModel("google/gemma-3-4b-it", "gemma3", GEMMA, 4.3, ONE_GRID),
    KnownModel("OpenGVLab/InternVL3-1B-hf", "internvl", INTERNVL, 0.9, (3328, 256)),
    KnownModel("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", APACHE, 8.5, (2197, 169)),
    KnownModel(
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm", APACHE, 0.5, (832, 64), "base of SmolVLA"
    ),
    KnownModel("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", APACHE, 2.2, (1053, 81)),
    KnownModel(
        "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "Qwen Research License, non-commercial", 3.8, QWEN2_5
    ),
    KnownModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", APACHE, 8.3, QWEN2_5, "RoboBrain 2.0"),
    KnownModel("nvidia/Cosmos-Reason1-7B", "qwen2_5_vl", NVIDIA, 8.3, QWEN2_5),
    KnownModel("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", APACHE, 2.1, QWEN3, "Cosmos-Reason2"),
    KnownModel("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", APACHE, 4.4, QWEN3),
    KnownModel(
        "Qwen/Qwen3-VL-8B-Instruct",
        "qwen3_vl",
        APACHE,
        8.8,
        QWEN3,
        "RoboBrain 2.5, Cosmos-Reason2, Embodied-R1.5",
    ),
)
