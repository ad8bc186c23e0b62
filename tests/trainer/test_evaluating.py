"""An evaluation, and being judged, changes nothing of the training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.models import CLASSES, FEATURES, dataset, loader, make_trainer, weights
from tests.trainer.judged import Judged


def randomness() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def test_evaluation_draws_no_random_numbers() -> None:
    own = torch.Generator().manual_seed(0)

    def measure(model: nn.Module, batches: Any) -> dict[str, float]:
        return {"noise": sum(float(x.sum()) for x, _ in batches) + random.random() + np.random.rand()}

    seen: list[Any] = []
    both: list[dict[str, Any]] = [{}, {"eval_fn": measure}]
    for options in both:
        batches = DataLoader(dataset(), 8, shuffle=True, generator=own)
        trainer = make_trainer(eval_loader=batches, **options)
        for event in ("eval_start", "eval_end"):
            trainer.callbacks.on(event)(lambda state: seen.append((randomness(), own.get_state().tolist())))
        trainer.fit()
    assert len(seen) == 12
    assert all(before == after for before, after in zip(seen[::2], seen[1::2], strict=True))


def test_weights_do_not_depend_on_where_a_scheduler_looked(tmp_path: Path) -> None:
    found = []
    for name, steps in (("a", set[int]()), ("b", {1, 3, 9})):
        trainer = make_trainer(
            eval_loader=loader(16), trial=Judged(tmp_path / name, steps),
            schedule=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
        )  # fmt: skip
        trainer.fit()
        found.append(weights(trainer))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("event", [None, "epoch_start", "step_start"])
def test_a_module_that_the_user_froze_stays_in_eval_mode(event: Any) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    before = model[1].running_mean.clone()  # type: ignore[operator]
    trainer = make_trainer(model=model, eval_loader=loader(), eval_every=2)
    if event is None:
        model[1].eval()
    else:
        trainer.callbacks.on(event)(lambda state: model[1].eval())
    modes: list[tuple[bool, bool]] = []
    trainer.callbacks.on("step_end")(lambda state: modes.append((model.training, model[1].training)))
    trainer.fit()
    assert set(modes) == {(True, False)}
    assert torch.equal(model[1].running_mean, before)  # type: ignore[arg-type]


def test_a_model_that_a_handler_left_in_eval_mode_trains_on_in_train_mode() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, CLASSES)).eval()
    trainer = make_trainer(model=model)
    modes: list[tuple[bool, bool]] = []
    trainer.callbacks.on("epoch_end")(lambda state: model.eval())
    trainer.callbacks.on("step_end")(lambda state: modes.append((model.training, model[2].training)))
    trainer.fit()
    assert set(modes) == {(True, True)}
