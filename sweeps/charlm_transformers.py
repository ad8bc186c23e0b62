"""A small GPT-2 that learns the text of CPython's own help, character by character, by Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from sweeps.charlm import CONTEXT, Windows, text
from xaytune import Trial
from xaytune.integrations.transformers import XaytuneCallback


class Examples(Dataset[dict[str, Tensor]]):
    """Pieces of the text, as Hugging Face's models want them."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        piece, _ = self.windows[index]
        return {"input_ids": piece, "labels": piece}


def train(config: dict[str, Any], trial: Trial) -> None:
    """Trains the model: `width`, `layers`, `dropout`, `lr`, `batch_size`."""
    indices, characters = text()
    cut = len(indices) * 95 // 100
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=characters,
            n_positions=CONTEXT,
            n_embd=config["width"],
            n_layer=config["layers"],
            n_head=4,
            resid_pdrop=config["dropout"],
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # in a trial it is the trial's folder
        max_steps=180,
        per_device_train_batch_size=config["batch_size"],
        learning_rate=config["lr"],
        warmup_steps=10,
        eval_strategy="steps",
        eval_steps=60,
        save_strategy="no",
        logging_steps=10,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=trial.seed,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Examples(Windows(indices[:cut])),
        eval_dataset=Subset(Examples(Windows(indices[cut:])), range(100)),
        callbacks=[XaytuneCallback(trial)],
    )
    latest = trial.latest_checkpoint
    trainer.train(resume_from_checkpoint=str(latest) if latest is not None else None)
