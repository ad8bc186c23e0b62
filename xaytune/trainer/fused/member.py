"""A member: one run among those that are trained side by side."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xaytune.trainer import hyperparameters
from xaytune.trainer.fused.dropout import probabilities
from xaytune.trainer.fused.rows import Own
from xaytune.trainer.fused.shape import Watch, criterion_key
from xaytune.trainer.fused.states import Randomness, States
from xaytune.trainer.run import Run

if TYPE_CHECKING:
    from xaytune.trainer.fused.checks import ComputedAlone
    from xaytune.trainer.fused.group import Group


class Member:
    """One run among those that are trained side by side.

    Either the row or the run's own model is the newer one. `settle` copies the run into its row, `fetch` copies
    the row back; whoever looks at the run fetches first.

    Args:
        run: The run.
        randomness: The global random states.
        states: Its own.

    Attributes:
        request: What its loop asks for.
        window: The batches of the step that it asks for, once they are loaded.
        waited: How many steps others have taken while it waited with its request.
        group: Where it has a row; None where it trains alone.
        row: The number of its row.
        trained: Whether it has asked for a step here.
        beginning: What was known of its shape before its first step; None where that has changed by then.
        computed: What its first step gives alone, while it waits to be taken with others.
        refused: Why it is not fused with any run; None if it may be.
        one_step_at_a_time: Whether its loop is to be asked after each step, for it is to stop.
        states: Its random states.
        generator: Draws what torch's global generator would draw for it.
        drops: Probabilities of its dropout layers.
        own: What its own model and optimizer keep; None without a row.
        checked: Whether a step that was taken with others was compared with the same taken alone.
        gradients: Of its last step, as a row.
        criterion: A key of its loss, before it has trained; None where that cannot be compared.
        compiled: Whether its model runs through ``torch.compile``: that pays where it trains alone.
    """

    def __init__(self, run: Run, randomness: Randomness, states: States) -> None:
        self.run = run
        self.request: Any = None
        self.window: list[Any] | None = None
        self.waited = 0
        self.group: Group | None = None
        self.row = -1
        self.trained = False
        self.beginning: Hashable = None
        self.computed: ComputedAlone | None = None
        self.refused: str | None = None
        self.one_step_at_a_time = False
        self.states = states
        self.criterion = _criterion_key_of(run)
        self.generator = states.generator(run.stepper.device)
        self.drops: list[float] = []
        self.checked = False
        self.gradients: tuple[Tensor, int] | None = None
        self._taken = self._beside = 0  # its steps that were taken at once, and those of all members in them
        self._randomness = randomness
        self.own: Own | None = None
        self._watch: Watch | None = None
        stepper = run.stepper
        self.compiled = stepper.forward is not stepper.model
        self._forward = stepper.forward
        self.use_compiled(False)
        self._away = False  # whether the row is newer than what the run has itself

    @property
    def fused(self) -> int:
        """How many members took its steps at once, itself included, in the mean; 0 if none was so taken."""
        return round(self._beside / self._taken) if self._taken else 0

    def stepped(self, members: int, steps: int) -> None:
        """Counts steps that were taken for so many members at once."""
        self._taken += steps
        self._beside += members * steps

    def use_compiled(self, compiled: bool) -> None:
        """Lets its own steps and evaluations run through ``torch.compile``, if they are to, or not."""
        stepper, evaluator = self.run.stepper, self.run.evaluator
        stepper.forward = self._forward if compiled else stepper.model
        if evaluator is not None:
            evaluator.forward = stepper.forward

    def enter(self) -> None:
        """Makes the global random states the member's."""
        self._randomness.enter(self.states)

    def fetch(self) -> None:
        """Brings its own model and optimizer up to date."""
        self.enter()
        if not self._away:
            return
        assert self.group is not None
        assert self.own is not None
        self._away = False
        self.group.rows.get(self.row, self.own)
        if self.gradients is not None:
            rows, at = self.gradients
            gradients = self.group.layout.split_one(rows[at].clone())
            for parameter, gradient in zip(self.own.trained, gradients, strict=True):
                parameter.grad = gradient
            self.gradients = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers in its row."""
        assert self.own is not None
        return self.own.trained[0].dtype

    def gradients_now(self) -> Tensor:
        """Returns the gradients of the step that was just taken with others, as a row."""
        assert self.gradients is not None
        rows, at = self.gradients
        return rows[at]

    def take_back(self, members: int) -> None:
        """Makes its own model that of its row, which is as it was before the step that was just taken.

        Args:
            members: How many took the step.
        """
        self.gradients = None
        self.fetch()
        self.stepped(members, -1)

    def leave(self) -> None:
        """Gives up its row."""
        self.fetch()
        self.use_compiled(True)
        if self.group is not None:
            self.group.remove(self)

    def join(self, group: Group, row: int) -> None:
        """Takes a row."""
        self.own, self._watch = Own(self.run, group.layout), Watch(self.run)
        self.group, self.row, self.checked = group, row, False
        hyperparameters.note_stepped(self.run.stepper.optimizer)

    def settle(self) -> bool:
        """Copies what the run has itself into its row, where that is newer; False if its shape has changed."""
        if self._away:
            return True
        assert self.group is not None
        assert self.own is not None
        assert self._watch is not None
        if self._watch.changed() or not self.own.is_whole or _criterion_key_of(self.run) != self.criterion:
            return False
        self.group.rows.put(self.row, self.own)
        self.drops = probabilities(self.run.stepper.model)
        self._away = True
        return True


def _criterion_key_of(run: Run) -> Hashable:
    try:
        return criterion_key(run)
    except Exception:  # also of what refers to itself, or a tensor that cannot be read
        return None
