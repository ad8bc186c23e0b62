"""Training several Trainers side by side, without a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused.fusion import Answer, Fusion
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.states import States
from xaytune.trainer.interrupts import interrupt_stops
from xaytune.trainer.run import Run


def fit_fused(trainers: Iterable[Run]) -> list[TrainState]:
    """Trains several Trainers side by side, those of one shape by one program.

    Each gives what its own ``fit()`` would give, to rounding, beginning with the random states that there are when
    this is called; afterwards these are as before. Which ones are trained alone, and why, is logged.

    Args:
        trainers: They must not share a model, an optimizer or a random generator.

    Returns:
        The state of each.

    Raises:
        ValueError: Two of them share what training changes.
        TypeError: One is no Trainer.
        ExceptionGroup: What some of them raised; the others were trained to their ends.
        KeyboardInterrupt: Ctrl-C, which stops all of them after their current step.
    """
    trainers = list(trainers)
    odd = next((trainer for trainer in trainers if not isinstance(trainer, Run)), None)
    if odd is not None:
        raise TypeError(f"fit_fused takes Trainers (got a {type(odd).__name__})")
    fusion = Fusion()
    members: list[Member] = []
    try:
        for trainer in trainers:
            members.append(fusion.begin(trainer, States()))
    except BaseException:
        for member in members:  # they may still be trained alone, compiled
            member.use_compiled(True)
        raise
    before = States()
    with interrupt_stops(*(trainer.state for trainer in trainers)):
        errors = _drive(fusion, members)
    fusion.randomness.vacate()
    before.put()
    for error in errors:
        if not isinstance(error, Exception):
            raise error
    if errors:
        failed = [error for error in errors if isinstance(error, Exception)]
        raise ExceptionGroup(f"{len(failed)} of {len(trainers)} runs failed", failed)
    return [trainer.state for trainer in trainers]


def _drive(fusion: Fusion, members: Sequence[Member]) -> list[BaseException]:
    """Drives all loops to their ends, and returns what they raised."""
    loops = {member: member.run.loop(member) for member in members}
    errors: list[BaseException] = []

    def answer(given: Answer) -> bool:
        """Answers a member; tells whether it asks for something else."""
        member, loop = given.member, loops[given.member]
        try:
            member.request = loop.send(given.value) if given.error is None else loop.throw(given.error)
        except StopIteration:
            fusion.end(member)
            return False
        except BaseException as error:
            fusion.end(member)
            errors.append(error)
            return False
        return True

    def begin(member: Member) -> bool:
        member.enter()
        return answer(Answer(member, None))

    asking = [member for member in members if begin(member)]
    while asking:
        try:
            answers = fusion.perform(asking)
        except BaseException as error:  # a second Ctrl-C
            answers = [Answer(member, None, error) for member in asking]
        answered = {given.member for given in answers}
        asking = [member for member in asking if member not in answered]
        asking += [given.member for given in answers if answer(given)]
    return errors
