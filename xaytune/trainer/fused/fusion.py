"""Fusion: it takes the steps and evaluations that many runs ask for, at once where it can."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from xaytune.trainer.batches import signature
from xaytune.trainer.fused.asked import Asked, Broken
from xaytune.trainer.fused.checks import (
    Rehearsal,
    compare,
    compute_alone,
    member_to_compare,
    rehearse,
    same_metrics,
)
from xaytune.trainer.fused.group import Copied, Group
from xaytune.trainer.fused.held import Held
from xaytune.trainer.fused.learned import Learned
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.reasons import reason
from xaytune.trainer.fused.shape import batches_key, beginning_of
from xaytune.trainer.fused.shapes import Shapes, fusing
from xaytune.trainer.fused.states import Randomness, States
from xaytune.trainer.fused.timing import FEWEST, now
from xaytune.trainer.hosting import Evaluation
from xaytune.trainer.run import Run
from xaytune.trainer.step import Step
from xaytune.trainer.tolerance import is_compared

logger = logging.getLogger(__name__)

# Members whose requests are alike wait so many steps for others that will ask for the same.
_PATIENCE = 40
_DIFFERS = "its loss or gradients are not those of training alone"


class Answer(NamedTuple):
    """What a member is answered: a value, or an error."""

    member: Member
    value: Any
    error: BaseException | None = None


class Fusion:
    """Takes the steps and evaluations of runs that are trained side by side.

    Args:
        tell: Called with a line about what is not fused, once for each such line.
        timed: Whether it is measured if steps at once are faster: runs of which they are not train alone.

    Attributes:
        randomness: The global random states.
        compared: How many steps were taken alone as well, to compare: a step that is timed meanwhile takes longer.
    """

    def __init__(self, tell: Callable[[str], None] = logger.warning, *, timed: bool = False) -> None:
        self.randomness, self.compared = Randomness(), 0
        self._timed = timed
        self._shapes = Shapes(tell)
        self._held = Held()

    @property
    def most(self) -> int:
        """How many runs can be trained at once, as far as there was memory."""
        return self._shapes.most

    def begin(self, run: Run, states: States) -> Member:
        """Takes in a run.

        Args:
            run: The run.
            states: Its random states.

        Raises:
            SharedError: It shares with another one, which may have ended, what both change.
        """
        self._held.take(run, states.owner)
        return Member(run, self.randomness, states)

    def end(self, member: Member) -> None:
        """Learns that the loop of a member has ended."""
        self._held.leave(member.run)
        self._shapes.say_why_nothing_is_fused()

    def perform(self, members: Sequence[Member]) -> list[Answer]:
        """Does what some members ask for; the others are to ask again.

        What can be done at once with others waits for them, for a while: the most that are alike come first, and a
        whole group waits for nobody. So members that began at different times meet at the ends of their epochs.
        """
        answers: list[Answer] = []
        sets: dict[tuple[Group, Hashable], list[Member]] = defaultdict(list)
        for member in members:
            try:
                self._held.check(member.run)
                alike = self._prepare(member)
            except Exception as error:  # of its loader, for one
                answers.append(Answer(member, None, error))
                continue
            if alike is None:
                answers.append(self._alone(member))
            else:
                sets[alike].append(member)
        most = max(map(len, sets.values()), default=0)
        waiting: list[Member] = []
        for (group, key), found in sets.items():
            if len(found) in (most, len(group.members)) or max(member.waited for member in found) >= _PATIENCE:
                answers += self._together(group, key, found)
            else:
                waiting += found
        steps = max((len(answer.value) for answer in answers if isinstance(answer.value, list)), default=1)
        for member in waiting:
            member.waited += steps
        for answer in answers:
            answer.member.window, answer.member.computed, answer.member.waited = None, None, 0
        return answers

    def _prepare(self, member: Member) -> tuple[Group, Hashable] | None:
        """Gives a member its group, and loads the batches of its step, where what it asks for can be done at once.

        Returns:
            The group, and a key that is the same for members whose requests can be done at once; None for one
            alone.
        """
        if isinstance(member.request, Evaluation):
            batches = batches_key(member.run)
            group = fusing(member)
            if group is None or batches is None or batches in group.learned.evaluated_alone:
                return None
            return group, ("evaluation", batches)
        if not member.trained:  # its first step shows what it trains
            member.trained = True
            if not self._compute_first(member):
                return None
        found = self._shapes.place(member)
        if found is None:
            return None
        if member.window is None:
            member.window = self._window(member)
        return found, tuple(map(signature, member.window))

    def _compute_first(self, member: Member) -> bool:
        """Computes the first step of a member alone, if it is likely to be taken with others; tells whether."""
        learned: Learned | None = None
        with contextlib.suppress(Exception):  # of what cannot be fused
            member.beginning = beginning_of(member.run)
            learned = self._shapes.begun_as(member.beginning)
        if learned is None:
            return False
        member.window = self._window(member)
        if tuple(map(signature, member.window)) not in learned.taken:  # nobody has seen what such a pass changes
            return False
        member.computed = compute_alone(member, _step_of(member))
        self.compared += 1
        return member.computed is not None

    def _together(self, group: Group, key: Any, found: list[Member]) -> list[Answer]:
        """Does what members of a group ask for, which is alike."""
        if len(found) < (FEWEST if key[0] == "evaluation" else group.learned.timing.fewest):
            return [self._alone(member) for member in found]
        settled = sorted(filter(self._settle, found), key=lambda member: member.row)
        answers = [self._alone(member) for member in found if member.group is not group]
        if isinstance(settled[0].request if settled else None, Evaluation):
            return answers + self._evaluate_at_once(group, key, settled)
        windows: list[list[Any]] = []
        for member in settled:
            assert member.window is not None
            windows.append(member.window)
        asked = Asked(settled, [member.request for member in settled], windows, key)
        return answers + (self._at_once(group, asked) if settled else [])

    def _at_once(self, group: Group, asked: Asked) -> list[Answer]:
        if group.learned.refused is not None:
            return [self._alone(member) for member in asked.members]
        if len(asked.members) > group.learned.most:
            half = len(asked.members) // 2
            return [
                answer
                for part in (slice(half), slice(half, None))
                for answer in self._at_once(group, asked.part(part))
            ]
        try:
            self.randomness.vacate()
            group.learn(asked)
            rehearsed = rehearse(group, asked)
            self.compared += len(rehearsed)
            self.randomness.vacate()
            timed = self._timed and not rehearsed and len(asked.members) > FEWEST
            if timed and group.learned.timing.begin(asked.shapes):
                return self._time(group, asked)
            before = group.copy(asked.members) if rehearsed else None
            given, broken = group.take_steps(asked, 1 if rehearsed else _how_many(group, asked))
        except torch.OutOfMemoryError:
            if len(asked.members) == 1:
                return [self._alone(member) for member in asked.members]
            count = len(asked.members)
            group.learned.most = count // 2
            self._shapes.say(f"out of memory with {count} runs at once: {count // 2} are trained at once now")
            return self._at_once(group, asked)
        except Exception as error:
            self._shapes.failed(group, error)
            return [self._alone(member) for member in asked.members]
        if broken is not None:
            self._take_alone(group, broken, given)
        wrong = self._check(group, asked, given, rehearsed, before) if before is not None else []
        answers = [Answer(member, steps) for member, steps in zip(asked.members, given, strict=True)]
        return [self._alone(answer.member) if answer.member in wrong else answer for answer in answers]

    def _take_alone(self, group: Group, broken: Broken, given: Sequence[list[Any]]) -> None:
        """Takes the steps that could not be taken at once, after others that were, and adds what they give."""
        if not isinstance(broken.error, torch.OutOfMemoryError):
            self._shapes.failed(group, broken.error)
        for member, window, steps in zip(broken.asked.members, broken.asked.windows, given, strict=True):
            member.window = window
            answer = self._alone(member)
            steps += answer.value if answer.error is None else [answer.error]

    def _check(
        self,
        group: Group,
        asked: Asked,
        given: Sequence[list[Any]],
        rehearsed: Mapping[int, Rehearsal],
        before: Copied,
    ) -> list[Member]:
        """Compares steps with the same alone; returns members whose steps were undone: they train alone now."""
        members = asked.members
        far = compare(group, asked, given, rehearsed)
        known = any(members[at].checked for at in far)
        for at in rehearsed:
            members[at].checked = True
        if not far:
            self._shapes.remember([members[at] for at in rehearsed], group.learned)
            return []
        all_of_them = known or len(far) == len(rehearsed) == len(members)
        undone = list(range(len(members))) if all_of_them else list(far)
        self.randomness.vacate()
        group.put_back(members, before, undone)
        for at in undone:
            members[at].take_back(len(members))
            members[at].window = asked.windows[at]
        wrong = [members[at] for at in undone]
        if all_of_them:
            self._shapes.refuse(group, f"{_DIFFERS} (off by {max(far.values()):.1e})")
            return wrong
        self._shapes.say(f"trained alone: {_DIFFERS}")
        for member in wrong:
            member.refused = _DIFFERS
            group.remove(member)
        return wrong

    def _time(self, group: Group, asked: Asked) -> list[Answer]:
        """Takes the step of the last member alone, after those of the others at once, to see which is faster.

        Raises:
            Exception: The step cannot be taken at once.
        """
        others, last = asked.part(slice(-1)), asked.members[-1]
        device = last.run.stepper.device
        begun = now(device)
        given, _ = group.take_steps(others, 1)
        together = now(device) - begun
        last.fetch()
        begun = now(device)
        alone = self._alone(last)
        why = group.learned.timing.took(now(device) - begun, together, len(others.members))
        if why is not None:
            self._shapes.refuse(group, f"that is faster ({why})")
        return [*(Answer(member, steps) for member, steps in zip(others.members, given, strict=True)), alone]

    def _evaluate_at_once(self, group: Group, key: tuple[str, Hashable], members: list[Member]) -> list[Answer]:
        batches = key[1]
        self.randomness.vacate()
        try:
            measured = group.evaluate(members)
        except Exception as error:
            group.learned.evaluated_alone.add(batches)
            self._shapes.say(f"evaluations are not fused: {reason(error)}")
            return [self._alone(member) for member in members]
        answers = [Answer(member, metrics) for member, metrics in zip(members, measured, strict=True)]
        group.learned.evaluated[batches] += 1
        time = group.learned.evaluated[batches]
        if is_compared(time):
            at = member_to_compare(time, len(members))
            alone = self._alone(members[at])
            if alone.error is None and not same_metrics(members[at], alone.value, measured[at]):
                group.learned.evaluated_alone.add(batches)
                self._shapes.say("evaluations are not fused: they give other values than alone")
                return [alone, *(self._alone(member) for member in members if member is not members[at])]
            answers[at] = alone
        return answers

    def _alone(self, member: Member) -> Answer:
        """Does what a member asks for as it would be done without others."""
        member.fetch()
        if member.compiled:
            member.use_compiled(member.refused is not None or (member.group is not None and not fusing(member)))
        request = member.request if member.window is None else _step_of(member)
        try:
            return Answer(member, member.run.perform(request))
        except BaseException as error:
            return Answer(member, None, error)

    def _settle(self, member: Member) -> bool:
        """Brings a member's row up to date; False, and out of its group, if its shape has changed."""
        if member.settle():
            return True
        assert member.group is not None
        member.group.forget()
        member.group.remove(member)
        return False

    def _window(self, member: Member) -> list[Any]:
        """Loads the batches of a step."""
        step: Step = member.request
        if member.run.parts.data.draws:
            member.enter()
        return list(step.batches)


def _step_of(member: Member) -> Step:
    """Returns the step that a member asks for, whose batches are loaded."""
    assert member.window is not None
    step: Step = member.request
    return step._replace(batches=iter(member.window))


def _how_many(group: Group, asked: Asked) -> int:
    """How many steps members may take in a row."""
    if any(member.one_step_at_a_time for member in asked.members):
        return 1
    return min(group.pace, 1 + min(step.more for step in asked.steps))
