"""Inference: admission, batches, the model thread and the vision stage."""
