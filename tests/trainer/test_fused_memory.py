"""A step for which there is not enough memory has changed nothing: it is taken again, by fewer at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.fused_models import Case, trainer_of
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.loop import Trainer
from xaytune.trainer.random_state import seed_everything

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
