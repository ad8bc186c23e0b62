"""Training several Trainers side by side, without a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused.fusion import Answer, Fusion
from xaytune.trainer.fused.member import Member
from xaytune.trainer.hosting import Loop
from xaytune.trainer.interrupts import interrupt_stops
from xaytune.trainer.run import Run

__all__ = ["fit_fused"]


def fit_fused(trainers: Sequence[Run]) -> list[TrainState]:
    """Trains several Trainers side by side, those of one shape by one program.

    Each gives what its own ``fit()`` would give, to rounding, beginning with the random states that there are when
    this is called; afterwards these are as before. Which ones are trained alone, and why, is logged.

    Args:
        trainers: They must not share a model, an optimizer or a random generator.

    Returns:
        The state of each.

    Raises:
        ValueError: Two of them share what training changes.
        ExceptionGroup: What some of them raised; the others were trained to their ends.
    """
    fusion = Fusion()
    with contextlib.ExitStack() as stack:
        members = [fusion.begin(trainer) for trainer in trainers]
        for trainer in trainers:
            stack.enter_context(interrupt_stops(trainer.state))
        before = Member(trainers[0], fusion.randomness) if trainers else None
        errors = _drive(fusion, members)
        if before is not None:
            before.enter()
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(trainers)} runs failed", errors)
    return [trainer.state for trainer in trainers]


def _drive(fusion: Fusion, members: list[Member]) -> list[Exception]:
    """Drives all loops to their ends, and returns what they raised."""
    loops: dict[Member, Loop] = {member: member.run.loop(member) for member in members}
    errors: list[Exception] = []
    asking: list[Member] = []

    def answer(given: Answer) -> None:
        member, loop = given.member, loops[given.member]
        try:
            member.request = loop.send(given.value) if given.error is None else loop.throw(given.error)
        except StopIteration:
            fusion.end(member)
        except Exception as error:
            fusion.end(member)
            errors.append(error)
        else:
            asking.append(member)

    for member in members:
        member.enter()
        answer(Answer(member, None))
    while asking:
        now, asking = asking, []
        answers = fusion.perform(now)
        answered = {given.member for given in answers}
        asking += [member for member in now if member not in answered]
        for given in answers:
            answer(given)
    return errors
