"""A recipe for sweeps whose trials do different things: each trains by the recipe that its configuration names."""

from __future__ import annotations

from typing import Any

from tests import recipes
from tests.drawing_recipe import drawn_at_import
from xaytune.records.results import Results
from xaytune.records.trial_record import TrialRecord
from xaytune.trial.run.trial import Trial


def train(config: dict[str, Any], trial: Trial) -> Any:
    """Trains by a recipe of :mod:`tests.recipes`: the kind is its name, and its ``x``."""
    name, x = config["kind"].split()
    recipe = drawn_at_import if name == drawn_at_import.__name__ else getattr(recipes, name)
    return recipe({"x": float(x)}, trial)


def of(results: Results, recipe: str) -> list[TrialRecord]:
    """The trials of a sweep that one recipe trained."""
    return [trial for trial in results.trials if trial.config["kind"].split()[0] == recipe]
