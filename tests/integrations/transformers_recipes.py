"""Runs of Hugging Face's Trainer on tiny models that are made here. Each gets a trial, and returns its weights."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, logging

from xaytune.integrations.transformers import XaytuneCallback
from xaytune.testing.training import weights_of
from xaytune.trainer.own import OwnLoop

logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]

VOCABULARY, LENGTH = 17, 8
DEFAULTS: dict[str, Any] = {
    "output_dir": tempfile.gettempdir(),
    "per_device_train_batch_size": 8,
    "num_train_epochs": 4,
    "learning_rate": 1e-2,
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "logging_steps": 2,
    "report_to": "none",
    "use_cpu": True,
    "seed": 7,
    "disable_tqdm": True,
    "log_level": "error",
}


class Texts(Dataset[dict[str, Tensor]]):
    """Sequences in which each token follows from the one before."""

    def __init__(self, examples: int) -> None:
        starts = torch.randint(VOCABULARY, (examples, 1), generator=torch.Generator().manual_seed(0))
        self.tokens = (starts + 3 * torch.arange(LENGTH)) % VOCABULARY

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def network() -> nn.Module:
    configuration = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = GPT2LMHeadModel(configuration)
    return model


def fit(trial: OwnLoop, **options: Any) -> Tensor:
    model = network()
    trainer = Trainer(
        model,
        TrainingArguments(**{**DEFAULTS, **options}),
        train_dataset=Texts(48),
        eval_dataset=Texts(16),
        callbacks=[XaytuneCallback(trial, save_every_s=0.0)],
    )
    latest: Any = trial.latest_checkpoint
    trainer.train(resume_from_checkpoint=latest)
    return weights_of(model)


def by_epochs(trial: OwnLoop) -> Tensor:
    return fit(trial)


def by_steps(trial: OwnLoop) -> Tensor:
    return fit(trial, max_steps=20, eval_strategy="steps", eval_steps=7)


def accumulated(trial: OwnLoop) -> Tensor:
    return fit(trial, per_device_train_batch_size=4, gradient_accumulation_steps=5)


def best_at_end(trial: OwnLoop) -> Tensor:
    return fit(trial, save_strategy="epoch", load_best_model_at_end=True, save_total_limit=1)
