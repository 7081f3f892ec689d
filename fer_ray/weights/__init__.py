"""The network that comes with the package: a checkpoint, its weights in float16, with its model card beside it."""

from pathlib import Path

SHIPPED_CHECKPOINT = Path(__file__).parent
"""Folder of the checkpoint, as ``fer_ray.inference.checkpoint.load_checkpoint`` takes it."""
