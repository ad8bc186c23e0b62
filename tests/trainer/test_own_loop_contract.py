from __future__ import annotations

import pytest

from xaytune.testing.training import TrainingContract

pytestmark = pytest.mark.slow


class TestEpochsOfSteps(TrainingContract):
    recipe = "tests.trainer.own_loops:nested"
    kills = 4


class TestTwoOptimizersAndTwoLoopsAnEpoch(TrainingContract):
    recipe = "tests.trainer.own_loops:adversarial"
    steps_by_optimizers = 2


class TestStepsEvaluatedAtTheTop(TrainingContract):
    recipe = "tests.trainer.own_loops:by_steps"
    judged_by = ("global_step",)


class TestEpisodes(TrainingContract):
    recipe = "tests.trainer.own_loops:by_episodes"
    judged_by = ("global_step",)


class TestEpochsWithoutSteps(TrainingContract):
    recipe = "tests.trainer.own_loops:by_epochs"


class TestEpochsWithALoopThatTheTrialDoesNotSee(TrainingContract):
    recipe = "tests.trainer.own_loops:plain_within_epochs"
    judged_by = ("epoch",)


class TestFolds(TrainingContract):
    recipe = "tests.trainer.own_loops:folds"


class TestAScript(TrainingContract):
    recipe = "tests.trainer.own_loops:at_module_level"
