"""All of a run that has a state to save, beside its position."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xaytune.trainer import random_state
from xaytune.trainer.data import ResumableLoader
from xaytune.trainer.kept import Kept
from xaytune.trainer.precision import Precision
from xaytune.trainer.schedule import Schedule

logger = logging.getLogger(__name__)

_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class Parts:
    """The parts of a run that a checkpoint holds.

    Attributes:
        model: The model.
        optimizer: Its optimizer.
        schedule: Of the learning rates.
        precision: Of the steps.
        data: The training data.
        kept: What the user keeps besides.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    data: ResumableLoader
    kept: Kept

    def state_dict(self, randomness: dict[str, Any] | None) -> dict[str, Any]:
        """Returns the states of all, and the random states: those given, or as they are now."""
        return {
            "model": _module(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "precision": self.precision.state_dict(),
            "data": self.data.state_dict(),
            "kept": self.kept.state_dict(),
            "random": randomness or self.randomness(),
            **self.schedule.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restores all states; an optimizer of another kind than the saved one begins anew.

        Raises:
            ValueError: The model or the optimizer's groups are not those of the saved run, or one of the others
                refused its state.
        """
        kind, saved_kind = type(self.optimizer).__name__, saved.get("optimizer_kind")
        is_another = saved_kind not in (None, kind)
        with _telling_what_to_do():
            _module(self.model).load_state_dict(_of_the_module(saved["model"]))
            if not is_another:
                self.optimizer.load_state_dict(saved["optimizer"])
        if is_another:
            logger.warning("the checkpoint was saved with %s: %s begins without its state", saved_kind, kind)
        self.schedule.load_state_dict(saved, another_optimizer=is_another)
        self.precision.load_state_dict(saved["precision"])
        self.kept.load_state_dict(saved.get("kept", {}))
        self.data.load_state_dict(saved["data"])
        random_state.restore(saved["random"], self.data.generators)

    def randomness(self) -> dict[str, Any]:
        """Returns the states of all random generators that training draws from."""
        return random_state.capture(self.data.generators)


@contextlib.contextmanager
def _telling_what_to_do() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch's
        raise ValueError(
            f"the run cannot be resumed from its checkpoint: {error}\nResume it with the model and the groups of "
            "parameters that it was saved with (what a handler adds later has to be there when the Trainer is "
            "made), or begin another run: with resume=False or another checkpoint_dir; in a sweep, as a new trial"
        ) from error


def _of_the_module(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Returns the state of the module itself, where it was saved from what ``torch.compile`` made of it."""
    found: Any = OrderedDict((name.removeprefix(_COMPILED), value) for name, value in state.items())
    if hasattr(state, "_metadata"):  # versions of the modules, by which they tell an older state
        found._metadata = {
            f"{name}.".removeprefix(_COMPILED)[:-1]: value for name, value in state._metadata.items()
        }
    return found  # type: ignore[no-any-return]


def _module(model: nn.Module) -> nn.Module:
    """The module itself, where the user gave what ``torch.compile`` made of it."""
    inner = getattr(model, "_orig_mod", model)
    assert isinstance(inner, nn.Module)
    return inner
