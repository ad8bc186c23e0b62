from __future__ import annotations

import pytest

from tests.ray_tune.sweeps import SAVED
from xaytune.ray_tune.sweep import Sweep
from xaytune.records.results import Results


@pytest.fixture(scope="session")
def undisturbed(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The sweep that others are compared with, which nothing happened to."""
    sweep = Sweep("tests.recipes:saved", mode="max", num_samples=12, **SAVED)
    return sweep.run(storage=tmp_path_factory.mktemp("undisturbed"))
