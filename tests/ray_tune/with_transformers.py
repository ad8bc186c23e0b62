"""A recipe whose training is Hugging Face's."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainingArguments

from tests.integrations.transformers_recipes import Texts, network
from xaytune.integrations.transformers import XaytuneCallback
from xaytune.trial.run.trial import Trial


def scored(predicted: Any) -> dict[str, float]:
    return {"score": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def train(config: dict[str, Any], trial: Trial) -> None:
    arguments = TrainingArguments(
        output_dir=str(trial.checkpoint_dir),
        per_device_train_batch_size=16,
        num_train_epochs=9,
        learning_rate=config["lr"],
        eval_strategy="epoch",
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(
        network(),
        arguments,
        train_dataset=Texts(48),
        eval_dataset=Texts(16),
        compute_metrics=scored,
        callbacks=[XaytuneCallback(trial)],
    )
    latest: Any = trial.latest_checkpoint
    trainer.train(resume_from_checkpoint=latest)
