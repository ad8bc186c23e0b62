"""Recipes whose training is Lightning's or Hugging Face's."""

from __future__ import annotations

from typing import Any

import torch

from xaytune.trial.trial import Trial


def with_lightning(config: dict[str, Any], trial: Trial) -> None:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    from tests.integrations.lightning_recipes import Classifier
    from tests.models import dataset, loader
    from xaytune.integrations.lightning import XaytuneCallback

    class Tuned(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), config["lr"], momentum=0.9)

    trainer = pl.Trainer(accelerator="cpu", max_epochs=9, callbacks=[XaytuneCallback(trial)], logger=False)
    trainer.fit(Tuned(), loader(), DataLoader(dataset(), 16), ckpt_path=trial.latest_checkpoint)


def with_transformers(config: dict[str, Any], trial: Trial) -> None:
    from transformers import Trainer, TrainingArguments

    from tests.integrations.transformers_recipes import Texts, network
    from xaytune.integrations.transformers import XaytuneCallback

    def scored(predicted: Any) -> dict[str, float]:
        return {"score": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

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
