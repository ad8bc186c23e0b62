from __future__ import annotations

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from xaytune.testing.training import TrainingContract


class TestEpochs(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:by_epochs"


class TestSteps(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:by_steps"
    judged_by = ("global_step",)


class TestAccumulated(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:accumulated"


class TestBestAtEnd(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:best_at_end"
    judged_by = ("epoch",)
