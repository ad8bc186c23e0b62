"""What fused runs do where memory runs out, and that what they need is given up when they end."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer import odd_programs
from tests.trainer.fused_models import Case, trainer_of
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer

MEMBERS = 4
ROWS = (MEMBERS, 112)  # of the parameters of all


class OutOfMemory(TorchDispatchMode):
    """Has no memory for what is as large as the rows of all members, for one time.

    Args:
        at: For how many there is memory before.
    """

    def __init__(self, at: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = at

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **kwargs or {})
        needs_memory = not func._schema.is_mutable and not any(r.alias_info for r in func._schema.returns)
        if needs_memory and isinstance(given, Tensor) and given.shape == ROWS:
            self.left -= 1
            if self.left == -1:
                raise torch.OutOfMemoryError("not enough memory")
        return given


def members(optimizer: str) -> list[Trainer]:
    return [trainer_of(Case(optimizer=optimizer, epochs=1), member) for member in range(MEMBERS)]


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "adamw", "groups"])
def test_a_step_that_runs_out_of_memory_is_taken_once(optimizer: str, caplog: pytest.LogCaptureFixture) -> None:
    alone = members(optimizer)
    for trainer in alone:
        seed_everything(7)
        trainer.fit()
    wanted = [trainer.model.state_dict() for trainer in alone]
    for at in range(1000):
        fused, memory = members(optimizer), OutOfMemory(at)
        seed_everything(7)
        with memory:
            fit_fused(fused)
        for trainer, state in zip(fused, wanted, strict=True):
            for name, tensor in trainer.model.state_dict().items():
                torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-12)
        if memory.left >= 0:  # there was enough for all
            break
    assert at > 3
    assert caplog.text.count("out of memory with 4 runs at once") >= at / 2


class Wide(nn.Sequential):
    """A model that can be counted."""


def test_of_runs_that_have_ended_nothing_is_kept_while_others_train() -> None:
    def trainer(width: int, epochs: int) -> Trainer:
        return odd_programs.trainer_of(Wide(nn.Linear(6, width), nn.Linear(width, 2)), num_epochs=epochs)

    trainers = [trainer(width, epochs=1) for width in (3, 4, 5)] + [trainer(6, epochs=2)]
    models: list[int] = []

    @trainers[-1].callbacks.on("train_end")
    def count(state: TrainState) -> None:
        models.append(sum(type(value) is Wide for value in gc.get_objects()))

    fit_fused(trainers)
    assert models == [len(trainers) + 1], "the only copy is that of the last"
