from __future__ import annotations

import pytest

from xaytune.testing.training import TrainingContract

pytestmark = pytest.mark.slow


class TestTrainer(TrainingContract):
    recipe = "tests.trainer.loops_with_events:with_trainer"


class TestTrainerThatAccumulates(TrainingContract):
    recipe = "tests.trainer.loops_with_events:accumulated"


class TestEventsByHand(TrainingContract):
    recipe = "tests.trainer.loops_with_events:by_hand"
