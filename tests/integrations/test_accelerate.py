from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState, PartialState

from xaytune.testing.training import TrainingContract

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Accelerate keeps its first settings for as long as a process lives; a trial's process is its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


class TestAccelerate(TrainingContract):
    recipe = "tests.integrations.accelerate_recipes:train"


class TestHalfPrecision(TrainingContract):
    recipe = "tests.integrations.accelerate_recipes:half_precision"
    judged_by = ("epoch",)
    kills = 1
