"""Comparing steps that are taken at once with the same taken alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xaytune.trainer.fused.group import Asked, Group
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.states import RandomStates
from xaytune.trainer.run import workings
from xaytune.trainer.step import Step, Stepped
from xaytune.trainer.tolerance import distance, rounding, tolerance

__all__ = ["Checks", "Rehearsal", "is_due"]

# What differs from training alone by no more than so many roundings is that.
_ROUNDINGS = 20


class Rehearsal(NamedTuple):
    """What a step gives that is taken alone.

    Attributes:
        gradients: As a row.
        loss: Of its batches.
        trains_others: Whether parameters have gradients that have no place in a row.
        random_states: Before it.
    """

    gradients: Tensor
    loss: Tensor
    trains_others: bool
    random_states: RandomStates


def is_due(taken: int) -> bool:
    """Whether what was done so often is to be compared the next time: the 1st, the 10th, the 100th ..."""
    return str(taken + 1).strip("0") == "1"


class Checks:
    """Says which steps are compared, and compares them.

    These are the first step of each member in its group, and of two members the 1st, 10th, 100th ... step over
    batches of their shapes: what makes runs differ beside their keys shows in some batches only.
    """

    def __init__(self) -> None:
        self._taken: Counter[Hashable] = Counter()  # steps at once, by group and shapes of batches

    @property
    def begun(self) -> bool:
        """Whether any step was taken at once."""
        return bool(self._taken)

    def rehearse(self, group: Group, asked: Asked) -> dict[int, Rehearsal]:
        """Takes alone what is to be compared, and changes nothing; returns it by the place of the member."""
        places = {at for at, member in enumerate(asked.members) if not member.checked}
        taken, count = self._taken[group.key, asked.shapes], len(asked.members)
        if is_due(taken):
            places |= {taken % count, (taken + count // 2) % count}
        rehearsed = {}
        for at in sorted(places):
            rehearsal = _rehearse(asked.members[at], _step_of(asked, at))
            if rehearsal is not None:
                rehearsed[at] = rehearsal
        return rehearsed

    def compare(
        self, group: Group, asked: Asked, given: Sequence[Sequence[Stepped]], rehearsed: Mapping[int, Rehearsal]
    ) -> dict[int, float]:
        """Returns how far the steps are from the same alone that are not the same, by the place of the member."""
        self._taken[group.key, asked.shapes] += 1
        far: dict[int, float] = {}
        for at, rehearsal in rehearsed.items():
            found = _distance(asked.members[at], _step_of(asked, at), given[at][0].metrics["loss"], rehearsal)
            if found > 0.0:
                far[at] = found
        return far


def _step_of(asked: Asked, at: int) -> Step:
    return asked.steps[at]._replace(batches=iter(asked.windows[at]))


def _rehearse(member: Member, step: Step) -> Rehearsal | None:
    """Computes alone the gradients of a step that a settled member is to take; None where that raises."""
    assert member.group is not None
    assert member.own is not None
    member.enter()
    member.group.rows.get(member.row, member.own)
    random_states = member.states.now()
    computed = _gradients(member, step)
    member.states.rewind(random_states)
    return None if computed is None else Rehearsal(*computed, _trains_others(member), random_states)


def _distance(member: Member, step: Step, loss: Tensor, rehearsal: Rehearsal) -> float:
    """Returns how far a step that was just taken with others is from the same alone; 0 where that is rounding."""
    if rehearsal.trains_others:
        return math.inf
    precision = workings(member.run).stepper.precision
    pairs = (member.gradients_now(), rehearsal.gradients), (loss, rehearsal.loss)
    far = [distance(given, alone) for given, alone in pairs]
    most = tolerance(member.dtype, precision)
    if max(far) <= most:
        return 0.0
    # Where a model fits its data, gradients are differences of numbers that are nearly equal: weights that are
    # changed by a rounding give others as well.
    changed = _with_rounded_weights(member, step, rehearsal, rounding(member.dtype, precision))
    if changed is None:
        return max(far)
    for at, ((given, alone), other) in enumerate(zip(pairs, changed, strict=True)):
        if float((given - alone).norm()) <= _ROUNDINGS * float((other - alone).norm()):
            far[at] = 0.0
    return max(far) if max(far) > most else 0.0


def _with_rounded_weights(
    member: Member, step: Step, rehearsal: Rehearsal, size: float
) -> tuple[Tensor, Tensor] | None:
    """Returns the gradients and the loss of a step alone, with weights changed by so much of their size."""
    assert member.own is not None
    member.enter()
    parameters, random_states = member.own.parameters, member.states.now()
    before = [parameter.clone() for parameter in parameters]
    generator = torch.Generator(parameters[0].device).manual_seed(0)
    for parameter in parameters:
        parameter.mul_(1 + size * torch.empty_like(parameter).normal_(generator=generator))
    member.states.rewind(rehearsal.random_states)
    computed = _gradients(member, step)
    member.states.rewind(random_states)
    torch._foreach_copy_(parameters, before)
    return computed


def _gradients(member: Member, step: Step) -> tuple[Tensor, Tensor] | None:
    """Returns the gradients of a step as a row, and its loss; None where it raises."""
    assert member.group is not None
    assert member.own is not None
    stepper = workings(member.run).stepper
    buffers = [(module, dict(module._buffers)) for module in stepper.model.modules() if module._buffers]
    kept = [(buffer, buffer.clone()) for buffer in stepper.model.buffers()]
    try:
        loss = stepper.gradients(step)["loss"]
    except Exception:  # the step itself will raise it
        return None
    finally:
        for module, known in buffers:
            module._buffers.update(known)
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in member.own.trained]
    return member.group.layout.join([gradient[None] for gradient in gradients])[0], loss


def _trains_others(member: Member) -> bool:
    """Whether parameters have gradients now that have no place in a row."""
    assert member.own is not None
    trained = {id(parameter) for parameter in member.own.trained}
    parameters = workings(member.run).stepper.model.parameters()
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters if id(p) not in trained)
