"""What samplers, schedulers and search methods have in common: their options, and the sweep they decide in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xaytune.sweep.configurable import Configurable
from xaytune.sweep.objective import Objective
from xaytune.sweep.space import Space


@dataclass(frozen=True)
class Setting:
    """The sweep that something decides in.

    Attributes:
        objective: What is optimised.
        space: The search space.
        seed: What random generators are seeded with.
        num_trials: Trials of the whole sweep; None where a budget ends it.
        early_stopping: Whether a scheduler may stop trials before their end.
        points_to_evaluate: Configurations that are tried first.
    """

    objective: Objective
    space: Space
    seed: int = 0
    num_trials: int | None = None
    early_stopping: bool = False
    points_to_evaluate: tuple[Mapping[str, Any], ...] = ()


class Extension(Configurable):
    """A sampler, scheduler or search method that a spec can name: ``algorithm: package.module:Class``.

    ``Class(keep=3)`` in Python and ``{algorithm: package.module:Class, keep: 3}`` in a file mean the same. The
    options are checked when it is made; a sweep begins with :meth:`begin`, which calls :meth:`setup`.

    Attributes:
        setting: The sweep.
    """

    setting: Setting

    def begin(self, setting: Setting) -> None:
        """Begins a sweep."""
        self.setting = setting
        self.setup()

    def setup(self) -> None:
        """Makes the state of a new sweep.

        Raises:
            SpecError: It cannot work in such a sweep.
        """
