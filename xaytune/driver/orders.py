"""What the driver wants done with a trial that runs. An executor does it; it decides nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from xaytune.messages import StopRequest


@dataclass(frozen=True)
class RequestStop:
    """The trial is asked to end through its own loop, before it trains another step if it waits for a decision."""

    trial: int
    request: StopRequest


@dataclass(frozen=True)
class Release:
    """The trial is paused: its process ends, and its place is free for others."""

    trial: int


@dataclass(frozen=True)
class Kill:
    """The process of the trial is ended at once: it does not stop, or it hangs.

    Its end is still to be reported: by its worker's last message, or, if the worker is ended too, by
    :meth:`~xaytune.driver.driver.Driver.lost`.

    Attributes:
        trial: The trial's number.
        with_worker: Whether its worker is ended too: it was to end the process, and has not done so.
    """

    trial: int
    with_worker: bool = False


Order = RequestStop | Release | Kill
