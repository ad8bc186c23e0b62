"""No step of a training waits for the device: a value is read where somebody needs it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models import dataset, loader, make_trainer
from xaytune.trainer.callbacks import TrainState

# What needs a value in the host's memory: on an accelerator the host waits there until all before it is computed.
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")


class Reads(TorchDispatchMode):
    """Counts the operators that read a value."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[name] += name in READS
        return func(*args, **(kwargs or {}))


def reads(examples: int, options: dict[str, Any]) -> Counter[str]:
    data = torch.utils.data.DataLoader(dataset(examples), 8, shuffle=True)
    trainer = make_trainer(train_loader=data, num_epochs=1, **options)
    rows: list[dict[str, Any]] = []

    @trainer.callbacks.on("step_end")
    def keep(state: TrainState) -> None:
        rows.append(dict(state.metrics))

    counts: Counter[str] = Counter()
    with Reads(counts):
        trainer.fit()
    assert len(rows) == examples // 8 // options.get("accumulate", 1)
    return counts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_grad_norm": 1.0},
        {"accumulate": 2},
        {"precision": "bf16"},
        {"eval_loader": loader()},
        {"schedule": lambda optimizer: CosineAnnealingLR(optimizer, 100), "lr_interval": "step"},
    ],
    ids=["plain", "clipped", "accumulated", "bf16", "evaluated", "scheduled"],
)
def test_no_step_waits_for_a_value_of_the_device(options: dict[str, Any]) -> None:
    assert +reads(96, options) == +reads(48, options)


def test_a_handler_that_reads_a_value_waits_at_each_step() -> None:
    def reading(examples: int) -> int:
        trainer = make_trainer(train_loader=torch.utils.data.DataLoader(dataset(examples), 8), num_epochs=1)
        trainer.callbacks.on("step_end")(lambda state: float(state.metrics["loss"]))
        counts: Counter[str] = Counter()
        with Reads(counts):
            trainer.fit()
        return counts["_local_scalar_dense"]

    assert reading(96) == reading(48) + 6
