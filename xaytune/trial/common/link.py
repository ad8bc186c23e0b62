"""The way between a trial and the driver, as the trial's side uses it, and over a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from xaytune.messages import DecisionDue, Ended, Message, StopRequest, standing
from xaytune.records.history import Row
from xaytune.trial.common.channel import Channel

# What an actor answers where a trial waits.
TRAIN_ON = "train on"
# What a process says when it has only to be gone: the kernel takes some milliseconds for that.
EXITING = "exiting"


class Imported(NamedTuple):
    """What a trial has imported.

    Attributes:
        names: The modules of installed packages, in their order.
        changed: Variables of the environment that are not what they were; None for one that is gone.
    """

    names: list[str]
    changed: dict[str, str | None]


class Link(Protocol):
    """The way to the driver."""

    @property
    def busy(self) -> bool:
        """Whether a heartbeat would have to wait."""

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Sends a message, with the rows that are its history, and does not wait."""

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        """Sends a message, waits until training may continue, and returns the request to stop, if there is one."""

    def stop_request(self) -> StopRequest | None:
        """Returns a request to stop that has come unasked."""


class ChannelLink:
    """The way to the driver by a channel.

    Args:
        channel: To whoever passes on what is said.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def busy(self) -> bool:
        """Whether a message is still being sent."""
        return self._channel.busy

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Sends a message."""
        self._channel.put((message, [tuple(row) for row in rows]))
        if isinstance(message, Ended):
            self._channel.flush()

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        """Sends a message, and waits for the answer."""
        self.tell(message, rows)
        self._channel.flush()
        request: StopRequest | None = None
        while (answer := self._channel.get(None)) != TRAIN_ON:
            request = standing(request, answer)
        return request

    def stop_request(self) -> StopRequest | None:
        """Returns a request that has come; sends what is left to be sent. It is asked for after steps."""
        self._channel.flush(0)
        request: StopRequest | None = self._channel.get(0)
        return request
