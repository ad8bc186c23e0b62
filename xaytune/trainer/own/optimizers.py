"""The optimizers of a loop of one's own: which batches are a part of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakSet

from torch.optim import Optimizer


class OptimizerWatch:
    """Notices the steps of optimizers: a batch after which none of them has stepped is a part of a step.

    Attributes:
        stepped: Whether one of them has, since this was set to False.
    """

    def __init__(self) -> None:
        self.stepped = False
        self._optimizers: WeakSet[Optimizer] = WeakSet()  # those of a fold that is over go with it

    @property
    def sees_any(self) -> bool:
        """Whether there is an optimizer to see."""
        return bool(self._optimizers)

    def watch(self, things: Iterable[Any]) -> None:
        """Watches optimizers, and those that schedulers and an Accelerator hold."""
        for optimizer in _optimizers_of(things):
            if optimizer not in self._optimizers:
                self._optimizers.add(optimizer)
                optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.stepped = True


def _optimizers_of(things: Iterable[Any]) -> Iterator[Optimizer]:
    for thing in things:
        if isinstance(thing, Optimizer) and hasattr(thing, "_optimizer_step_post_hooks"):
            yield thing
        else:
            yield from _optimizers_of(getattr(thing, "_optimizers", None) or ())
            yield from _optimizers_of([thing.optimizer] if hasattr(thing, "optimizer") else ())
