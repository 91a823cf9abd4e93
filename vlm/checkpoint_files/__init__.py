"""Find and read checkpoint folders in Hugging Face format, for every kind of model.

Only safetensors weights are loaded; no code of a checkpoint is executed.
"""

from vlm.checkpoint_files.files import CheckpointReader, available_device, three, weights_hash
from vlm.checkpoint_files.manifest import MANIFEST, ManifestError, write_manifest

__all__ = [
    "MANIFEST",
    "CheckpointReader",
    "ManifestError",
    "available_device",
    "three",
    "weights_hash",
    "write_manifest",
]
