"""The shapes that have come: their groups, what was learned of them, and why runs of some are not fused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, MutableMapping
from weakref import WeakValueDictionary

from xaytune.trainer.fused.group import Group
from xaytune.trainer.fused.keys import NotFusedError
from xaytune.trainer.fused.learned import Learned
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.reasons import reason
from xaytune.trainer.fused.shape import criterion_key, difference, shape_of

# Where so many shapes have come, and none has enough runs to be trained at once, the user is told why.
_UNLIKE = 6
# A shape whose steps at once have failed so often is fused no more.
_FAILURES = 3


class Shapes:
    """Gives members their groups, and keeps what was learned of each shape.

    Args:
        tell: Called with a line about what is not fused, once for each such line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        # Only its members keep a group alive. What was learned of its shape stays.
        self._groups: MutableMapping[Hashable, Group] = WeakValueDictionary()
        self._learned: dict[Hashable, Learned] = {}  # of all shapes so far
        # What members were before their first step, of which the steps were taken at once.
        self._beginnings: dict[Hashable, Learned] = {}
        self._told: set[str] = set()
        self._said_why_nothing_is_fused = False

    @property
    def most(self) -> int:
        """How many runs can be trained at once, as far as there was memory."""
        return min((learned.most for learned in self._learned.values()), default=sys.maxsize)

    def place(self, member: Member) -> Group | None:
        """Returns the group of a member, where it is put in if it is in none; None where it trains alone."""
        if member.group is not None:
            return fusing(member)
        if member.refused is not None:
            return None
        try:
            key = shape_of(member.run, member.beginning if member.computed is not None else None)
            if key[0] != member.beginning:
                member.beginning = None
            if criterion_key(member.run) != member.criterion:
                raise NotFusedError("its loss changes what it captures, such as a count of its calls")
            group = self._group_of(member, key)
            group.add(member)
        except Exception as error:  # also of what cannot be compared, or has no room
            member.refused = str(error) if isinstance(error, NotFusedError) else reason(error)
            self.say(f"trained alone: {member.refused}")
            return None
        if member.compiled:
            self.say("runs with compile=True are trained fused, without torch.compile")
        return group

    def remember(self, members: Iterable[Member], learned: Learned) -> None:
        """Notes what members of a shape were before their first step."""
        begun = [member.beginning for member in members]
        self._beginnings |= {beginning: learned for beginning in begun if beginning is not None}

    def begun_as(self, beginning: Hashable) -> Learned | None:
        """Returns what was learned of a shape that is fused now, whose members have begun so."""
        learned = self._beginnings.get(beginning)
        if learned is None or learned.refused is not None:
            return None
        return learned if any(group.learned is learned for group in self._groups.values()) else None

    def failed(self, group: Group, error: Exception) -> None:
        """Counts a step that could not be taken at once."""
        group.learned.failures += 1
        if group.learned.failures >= _FAILURES or isinstance(error, NotFusedError):
            self.refuse(group, reason(error))

    def refuse(self, group: Group, why: str) -> None:
        """Lets the runs of a shape train alone from now on."""
        group.learned.refused = why
        self.say(f"trained alone: {why}")

    def say(self, line: str) -> None:
        """Tells a line that was not told before."""
        if line not in self._told:
            self._told.add(line)
            self._tell(line)

    def say_why_nothing_is_fused(self, least: int = 2) -> None:
        """Says once where so many shapes differ, or more, if none of their runs is trained with others."""
        begun = any(learned.taken for learned in self._learned.values())
        if self._said_why_nothing_is_fused or len(self._learned) < least or begun:
            return
        self._said_why_nothing_is_fused = True
        first, *others = self._learned
        parts = sorted({difference(first, other) for other in others})
        self.say(f"trained alone: the first {len(self._learned)} shapes differ in their {' and '.join(parts)}")

    def _group_of(self, member: Member, key: Hashable) -> Group:
        """Returns the group of a shape, which is made with a member of it where there is none.

        Raises:
            NotFusedError: Runs of that shape train alone.
        """
        learned = self._learned.get(key, Learned())
        if learned.refused is not None:
            raise NotFusedError(learned.refused)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(member, learned, self.say)
        if key not in self._learned:
            self._learned[key] = learned
            self.say_why_nothing_is_fused(_UNLIKE)
        return group


def fusing(member: Member) -> Group | None:
    """Returns the group of a member, if it has one whose steps are taken at once."""
    return member.group if member.group is not None and member.group.learned.refused is None else None
