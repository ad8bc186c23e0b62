"""A member: one run among those that are trained side by side, with its own random states."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xaytune.trainer.fused.dropout import probabilities
from xaytune.trainer.fused.keys import NotFusedError
from xaytune.trainer.fused.rows import Own
from xaytune.trainer.fused.shape import Watch, objective_key
from xaytune.trainer.run import Run, workings
from xaytune.trainer.step import Step
from xaytune.trainer.tolerance import distance, rounding, tolerance

if TYPE_CHECKING:
    from xaytune.trainer.fused.group import Group

__all__ = ["Member", "Randomness", "Rehearsal", "States"]


# What differs from training alone by no more than so many roundings is that.
_ROUNDINGS = 20


class RandomStates(NamedTuple):
    """States of the global generators at some time."""

    python: Any
    numpy: Any
    cpu: Tensor
    cuda: Tensor | None


class Randomness:
    """The global random states, which are those of one member at a time."""

    def __init__(self) -> None:
        self._whose: States | None = None

    def enter(self, states: States) -> None:
        """Makes them those of a member."""
        if self._whose is states:
            return
        self.vacate()
        states.put()
        self._whose = states

    def vacate(self) -> None:
        """Makes them nobody's: what is drawn now changes no member."""
        if self._whose is not None:
            self._whose.take()
            self._whose = None


class States:
    """The random states of a member: at first those of the process.

    Args:
        entered: Called when its states have become the global ones: its code is to run.
        left: Called when they are to be so no longer.

    Attributes:
        owner: Stands for whose they are, and keeps nothing of it alive.
    """

    def __init__(self, entered: Callable[[], None] | None = None, left: Callable[[], None] | None = None) -> None:
        self._entered, self._left = entered, left
        self.owner = object()
        self._cpu = torch.Generator()
        self._cuda: torch.Generator | None = None
        self._take()

    def generator(self, device: torch.device) -> torch.Generator:
        """Returns what draws as a device's global generator would, while these states are not the global ones."""
        if device.type != "cuda":
            return self._cpu
        if self._cuda is None:
            self._cuda = torch.Generator(device)
            self._cuda.set_state(torch.cuda.get_rng_state(device))
        return self._cuda

    def take(self) -> None:
        """Takes the global states."""
        if self._left is not None:
            self._left()
        self._take()

    def now(self) -> RandomStates:
        """Returns the global states, which are these now."""
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda.device)
        return RandomStates(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def rewind(self, before: RandomStates) -> None:
        """Makes the global states what they were."""
        random.setstate(before.python)
        np.random.set_state(before.numpy)
        torch.set_rng_state(before.cpu)
        if before.cuda is not None and self._cuda is not None:
            torch.cuda.set_rng_state(before.cuda, self._cuda.device)

    def _take(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._cpu.set_state(torch.get_rng_state())
        if self._cuda is not None:
            self._cuda.set_state(torch.cuda.get_rng_state(self._cuda.device))

    def put(self) -> None:
        """Makes these the global states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._cpu.get_state())
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda.get_state(), self._cuda.device)
        if self._entered is not None:
            self._entered()


class Rehearsal(NamedTuple):
    """What a step gives that is taken alone.

    Attributes:
        loss: Of its batches.
        gradients: As a row.
        trains_others: Whether parameters have gradients that have no place in a row.
        random_states: Before it.
    """

    loss: Tensor
    gradients: Tensor
    trains_others: bool
    random_states: RandomStates


class Member:
    """One run among those that are trained side by side.

    Args:
        run: The run.
        randomness: The global random states.
        states: Its own.

    Attributes:
        request: What its loop asks for.
        window: The batches of the step that it asks for, once they are loaded.
        waited: For how many steps of others it has asked for the same.
        group: Where it has a row; None where it trains alone.
        row: The number of its row.
        trained: Whether it has trained a step here.
        refused: Why it is not fused with any run; None if it may be.
        hurried: Whether its loop is to be asked after each step, for it is to stop.
        states: Its random states.
        generator: Draws what torch's global generator would draw for it.
        drops: Probabilities of its dropout layers.
        checked: Whether a step that was taken with others was compared with the same taken alone.
        gradients: Of its last step, as a row.
        objective: A key of its loss, before it has trained; None where that cannot be compared.
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
        self.refused: str | None = None
        self.hurried = False
        self.states = states
        self.objective = _objective_key_of(run)
        self.generator = states.generator(workings(run).stepper.device)
        self.drops: list[float] = []
        self.checked = False
        self.gradients: tuple[Tensor, int] | None = None
        self._taken = self._beside = 0
        self._randomness = randomness
        self._own: Own | None = None
        self._watch: Watch | None = None
        stepper = workings(run).stepper
        self.compiled = stepper.forward is not stepper.model
        self._forward = stepper.forward
        self.use_compiled(False)
        self._away = False  # whether the row is newer than what the run has itself

    @property
    def fused(self) -> int:
        """With how many others, and itself, its steps were taken at once in the mean; 0 if none was."""
        return round(self._beside / self._taken) if self._taken else 0

    def stepped(self, members: int, steps: int) -> None:
        """Counts steps that were taken for so many members at once."""
        self._taken += steps
        self._beside += members * steps

    def use_compiled(self, compiled: bool) -> None:
        """Lets its own steps and evaluations run through ``torch.compile``, if they are to, or not."""
        stepper, evaluator, _ = workings(self.run)
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
        assert self._own is not None
        self._away = False
        self.group.rows.get(self.row, self._own)
        if self.gradients is not None:
            rows, at = self.gradients
            gradients = self.group.layout.split_one(rows[at].clone())
            for parameter, gradient in zip(self._own.trained, gradients, strict=True):
                parameter.grad = gradient
            self.gradients = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters in its row."""
        assert self._own is not None
        return self._own.trained[0].dtype

    def gradients_now(self) -> Tensor:
        """Returns the gradients of the step that was just taken with others, as a row."""
        assert self.gradients is not None
        rows, at = self.gradients
        return rows[at]

    def rehearse(self, step: Step) -> Rehearsal | None:
        """Computes the gradients of a step alone, and changes nothing; None where that raises.

        Args:
            step: What is to be taken with others; the member is settled.
        """
        assert self.group is not None
        assert self._own is not None
        self.enter()
        self.group.rows.get(self.row, self._own)
        random_states = self.states.now()
        computed = self._gradients(step)
        self.states.rewind(random_states)
        return None if computed is None else Rehearsal(*computed, self._trains_others(), random_states)

    def is_rounding(self, step: Step, rehearsal: Rehearsal, loss: Tensor, gradients: Tensor) -> bool:
        """Whether a step gives other values than the same alone for rounding alone.

        Where a model fits its data, gradients are differences of numbers that are nearly equal. Then weights that
        are changed by a rounding give others as well.

        Args:
            step: As it was rehearsed.
            rehearsal: What it gave.
            loss: What it gave with others.
            gradients: The same.
        """
        assert self._own is not None
        if rehearsal.trains_others:
            return False
        self.enter()
        parameters, random_states = self._own.parameters, self.states.now()
        before = [parameter.clone() for parameter in parameters]
        generator = torch.Generator(parameters[0].device).manual_seed(0)
        size = rounding(self.dtype, workings(self.run).stepper.precision)
        for parameter in parameters:
            noise = torch.empty_like(parameter).normal_(generator=generator)
            parameter.mul_(1 + size * noise)
        self.states.rewind(rehearsal.random_states)
        computed = self._gradients(step)
        self.states.rewind(random_states)
        torch._foreach_copy_(parameters, before)
        if computed is None:
            return False
        pairs = (gradients, rehearsal.gradients, computed[1]), (loss, rehearsal.loss, computed[0])
        return all(
            float((given - alone).norm()) <= _ROUNDINGS * float((changed - alone).norm())
            or distance(given, alone) <= tolerance(self.dtype, workings(self.run).stepper.precision)
            for given, alone, changed in pairs
        )

    def _gradients(self, step: Step) -> tuple[Tensor, Tensor] | None:
        """Returns the loss of a step and its gradients as a row; None where it raises."""
        assert self.group is not None
        assert self._own is not None
        stepper = workings(self.run).stepper
        buffers = [(module, dict(module._buffers)) for module in stepper.model.modules() if module._buffers]
        try:
            loss = stepper.gradients(step)["loss"]
        except Exception:  # the step itself will raise it
            return None
        finally:
            for module, known in buffers:
                module._buffers.update(known)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._own.trained]
        return loss, self.group.layout.join([gradient[None] for gradient in gradients])[0]

    def _trains_others(self) -> bool:
        """Whether parameters have gradients now that have no place in a row."""
        assert self._own is not None
        trained = {id(parameter) for parameter in self._own.trained}
        parameters = workings(self.run).stepper.model.parameters()
        return any(p.grad is not None and bool(p.grad.any()) for p in parameters if id(p) not in trained)

    def take_back(self, rehearsal: Rehearsal) -> None:
        """Undoes the step that was rehearsed, and leaves the group: its own model is as before."""
        assert self.group is not None
        self.enter()
        self.states.rewind(rehearsal.random_states)
        self._away, self.gradients = False, None
        self._taken = self._beside = 0
        self.group.remove(self)

    def leave(self) -> None:
        """Gives up its row."""
        self.fetch()
        self.use_compiled(True)
        if self.group is not None:
            self.group.remove(self)

    def join(self, group: Group, row: int) -> None:
        """Takes a row."""
        self.group, self.row, self.checked = group, row, False
        self._own, self._watch = Own(self.run, group.layout), Watch(self.run)
        optimizer: Any = workings(self.run).stepper.optimizer
        optimizer._opt_called = True  # else torch's schedulers warn, falsely

    def settle(self) -> bool:
        """Copies what the run has itself into its row, where that is newer; False if its shape has changed."""
        if self._away:
            return True
        assert self.group is not None
        assert self._own is not None
        assert self._watch is not None
        if self._watch.changed() or not self._own.is_whole or _objective_key_of(self.run) != self.objective:
            return False
        self.group.rows.put(self.row, self._own)
        self.drops = probabilities(workings(self.run).stepper.model)
        self._away = True
        return True


def _objective_key_of(run: Run) -> Hashable:
    try:
        return objective_key(run)
    except NotFusedError:
        return None
