"""Hugging Face: the loader that the Trainer trains from."""

from __future__ import annotations

import math
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerState, TrainingArguments

__all__ = ["empty", "steps_per_epoch"]


def steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> tuple[int, bool]:
    """Returns the optimizer steps of an epoch, as the Trainer counts them, and whether that is only the most."""
    try:
        batches = len(loader)
    except TypeError:  # a stream: as many as it has, and then from its beginning
        return int(state.max_steps), True
    return max(math.ceil(batches / args.gradient_accumulation_steps), 1), False


def empty(args: TrainingArguments, loader: Any) -> None:
    """Leaves a run nothing to train: the Trainer looks whether it is to stop only after a step."""
    loader.base_dataloader = DataLoader[Any]([])  # type: ignore[arg-type]
    args.ignore_data_skip = True
