"""Waiting for a device, so that clocks tell the truth. Knows no model."""

import torch


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given: a clock then reads work done and not work queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
