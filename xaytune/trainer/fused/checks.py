"""Comparing steps that are taken at once with the same taken alone.

Compared are the first step of each member in its group; of two members the 1st, 10th, 100th ... step over batches
of their shapes, for what makes runs differ beside their keys shows in some batches only; and every now and then
the first step of an epoch, for that is where handlers change what they change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xaytune.trainer import random_state
from xaytune.trainer.fused.asked import Asked
from xaytune.trainer.fused.group import Group
from xaytune.trainer.fused.learned import Learned
from xaytune.trainer.fused.member import Member
from xaytune.trainer.step import Step, Stepped
from xaytune.trainer.tolerance import distance, is_compared, rounding, tolerance

# What differs from training alone by no more than so many roundings is that.
_ROUNDINGS = 20
# The first step of so many epochs is compared, then of one where so many steps of members were taken since.
_EPOCHS, _STEPS_BETWEEN_EPOCHS = 8, 500
# Examples of an evaluation that may have two highest scores, of which either may win by rounding.
_TIES = 2


class ComputedAlone(NamedTuple):
    """What a step gives that is computed alone, beside the gradients: those the parameters have.

    Attributes:
        values: The loss of the batches, and the buffers as it leaves them.
        random_states: Before it.
    """

    values: list[Tensor]
    random_states: dict[str, Any]


class Rehearsal(NamedTuple):
    """What a step gives that is taken alone.

    Attributes:
        values: Gradients as a row, the loss of the batches, and the buffers as it leaves them.
        trains_others: Whether parameters have gradients that have no place in a row.
        random_states: Before it.
    """

    values: list[Tensor]
    trains_others: bool
    random_states: dict[str, Any]


def compute_alone(member: Member, step: Step) -> ComputedAlone | None:
    """Computes the gradients of a step of a member, which its parameters then have, and changes nothing else.

    Returns:
        What it gives besides; None where it raises, as the step itself will.
    """
    member.enter()
    random_states = random_state.capture()
    parameters = [parameter.data for parameter in member.run.stepper.model.parameters()]
    before = [parameter.clone() for parameter in parameters]
    values = _loss_and_buffers(member, step)
    torch._foreach_copy_(parameters, before)  # a forward pass may change them, as that of a model with a teacher
    random_state.restore(random_states)
    return None if values is None else ComputedAlone(values, random_states)


def member_to_compare(time: int, members: int) -> int:
    """Returns the place of the member, of so many, that is compared this time: the 1st, the 10th, the 100th ...

    Each time it is another one, and the first one is the last: a group computes with what that one has.
    """
    return len(str(time)) % members


def rehearse(group: Group, asked: Asked) -> dict[int, Rehearsal]:
    """Takes alone what is to be compared, and changes nothing; returns it by the place of the member."""
    places = {at for at, member in enumerate(asked.members) if not member.checked}
    time, count = group.learned.taken[asked.shapes] + 1, len(asked.members)
    if is_compared(time):
        turn = member_to_compare(time, count)
        places |= {turn, (turn + count // 2) % count}
    elif (at := _of_an_epoch(group.learned, asked)) is not None:
        places.add(at)
    rehearsed = {}
    for at in sorted(places):
        rehearsal = _rehearse(asked.members[at], asked.step(at))
        if rehearsal is not None:
            rehearsed[at] = rehearsal
    return rehearsed


def _of_an_epoch(learned: Learned, asked: Asked) -> int | None:
    """Returns the place of a member whose first step of an epoch is to be compared; None where none is."""
    if learned.epochs >= _EPOCHS and learned.since < _STEPS_BETWEEN_EPOCHS:
        return None
    # The group computes with what the first member has: the others show what is not the same for all.
    begin = [at for at, m in enumerate(asked.members) if m.run.state.step == 0 < m.run.state.epoch]
    others = begin[1:] or begin
    if not others:
        return None
    learned.epochs += 1
    learned.since = 0
    return others[learned.epochs % len(others)]


def compare(
    group: Group, asked: Asked, given: Sequence[Sequence[Stepped]], rehearsed: Mapping[int, Rehearsal]
) -> dict[int, float]:
    """Returns how far the steps are from the same alone that are not the same, by the place of the member."""
    group.learned.taken[asked.shapes] += 1
    group.learned.since += sum(map(len, given))
    far: dict[int, float] = {}
    for at, rehearsal in rehearsed.items():
        found = _distance(asked.members[at], asked.step(at), given[at][0].metrics["loss"], rehearsal)
        if found > 0.0:
            far[at] = found
    return far


def same_metrics(member: Member, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether two evaluations of a member agree.

    The loss agrees to rounding, the accuracy but for two examples whose highest scores tie.
    """
    evaluator, precision = member.run.evaluator, member.run.stepper.precision
    assert evaluator is not None
    loader: Any = evaluator.loader
    hits = [metrics.get("eval_accuracy", 0.0) for metrics in (one, other)]
    if abs(hits[0] - hits[1]) > max(_TIES / len(loader.sampler), rounding(member.dtype, precision)):
        return False
    losses = [torch.tensor(metrics["eval_loss"], dtype=torch.float64) for metrics in (one, other)]
    near = float((losses[0] - losses[1]).abs()) <= rounding(member.dtype, precision)
    return one.keys() == other.keys() and (near or distance(*losses) <= tolerance(member.dtype, precision))


def _rehearse(member: Member, step: Step) -> Rehearsal | None:
    """Computes alone the gradients of a step that a settled member is to take; None where that raises."""
    assert member.group is not None
    assert member.own is not None
    computed, member.computed = member.computed, None
    if computed is None:
        member.enter()
        member.group.rows.get(member.row, member.own)
        computed = compute_alone(member, step)
    if computed is None:
        return None
    return Rehearsal([_gradients(member), *computed.values], _trains_others(member), computed.random_states)


def _distance(member: Member, step: Step, loss: Tensor, rehearsal: Rehearsal) -> float:
    """Returns how far a step that was just taken with others is from the same alone; 0 where that is rounding."""
    if rehearsal.trains_others:
        return math.inf
    assert member.group is not None
    precision = member.run.stepper.precision
    given = [member.gradients_now(), loss, *member.group.rows.buffers(member.row)]
    if any(one.shape != other.shape for one, other in zip(given, rehearsal.values, strict=True)):
        return math.inf
    far = [distance(one, other) for one, other in zip(given, rehearsal.values, strict=True)]
    most = tolerance(member.dtype, precision)
    if max(far) <= most:
        return 0.0
    # Where a model fits its data, gradients are differences of numbers that are nearly equal: weights that are
    # changed by a rounding give others as well.
    changed = _with_rounded_weights(member, step, rehearsal, rounding(member.dtype, precision))
    if changed is None:
        return max(far)
    for at, (one, alone, other) in enumerate(zip(given, rehearsal.values, changed, strict=True)):
        off, by_rounding = ((value.double() - alone.double()).norm() for value in (one, other))
        if float(off) <= _ROUNDINGS * float(by_rounding):
            far[at] = 0.0
    return max(far) if max(far) > most else 0.0


def _with_rounded_weights(member: Member, step: Step, rehearsal: Rehearsal, size: float) -> list[Tensor] | None:
    """Returns what a step gives alone, with weights changed by so much of their size."""
    assert member.own is not None
    member.enter()
    parameters, random_states = member.own.parameters, random_state.capture()
    before = [parameter.clone() for parameter in parameters]
    generator = torch.Generator(parameters[0].device).manual_seed(0)
    for parameter in parameters:
        parameter.mul_(1 + size * torch.empty_like(parameter).normal_(generator=generator))
    random_state.restore(rehearsal.random_states)
    values = _loss_and_buffers(member, step)
    random_state.restore(random_states)
    torch._foreach_copy_(parameters, before)
    return None if values is None else [_gradients(member), *values]


def _loss_and_buffers(member: Member, step: Step) -> list[Tensor] | None:
    """Computes the gradients of a step; returns its loss, and buffers after it; None where it raises."""
    stepper = member.run.stepper
    buffers = [(module, dict(module._buffers)) for module in stepper.model.modules() if module._buffers]
    kept = [(buffer, buffer.clone()) for buffer in stepper.model.buffers()]
    try:
        loss = stepper.gradients(step)["loss"]
        left = [buffer.clone() for buffer in stepper.model.buffers()]
    except (Exception, SystemExit):  # the step itself will raise it
        return None
    finally:
        for module, known in buffers:
            module._buffers.update(known)
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
    return [loss, *left]


def _gradients(member: Member) -> Tensor:
    """Returns the gradients that its own parameters have as a row."""
    assert member.group is not None
    assert member.own is not None
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in member.own.trained]
    return member.group.layout.join([gradient[None] for gradient in gradients])[0]


def _trains_others(member: Member) -> bool:
    """Whether parameters have gradients now that have no place in a row."""
    assert member.own is not None
    trained = {id(parameter) for parameter in member.own.trained}
    parameters = member.run.stepper.model.parameters()
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters if id(p) not in trained)
