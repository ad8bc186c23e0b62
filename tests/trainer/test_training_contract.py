from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainer import loops_fused
from xaytune.testing.training import JudgedRun, TrainingContract

pytestmark = pytest.mark.slow


class TestTrainer(TrainingContract):
    recipe = "tests.trainer.loops_with_events:with_trainer"


class TestTrainerThatAccumulates(TrainingContract):
    recipe = "tests.trainer.loops_with_events:accumulated"


class TestEventsByHand(TrainingContract):
    recipe = "tests.trainer.loops_with_events:by_hand"


class TestFusedMember(TrainingContract):
    recipe = "tests.trainer.loops_fused:member"
    rounding = 1e-12

    @contextlib.contextmanager
    def counted_steps(self) -> Iterator[Callable[[], int]]:
        loops_fused.COUNTED[0] = 0
        yield lambda: loops_fused.COUNTED[0]  # hooks of optimizers would keep it from being fused

    def test_it_is_fused(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self._train(JudgedRun(tmp_path))
        assert not caplog.records, "what is not fused is told"
