"""One run of a sweep: all of it, or what is left of one that is resumed."""

from __future__ import annotations

from dataclasses import dataclass

from xaytune.driver.recorder import Listener
from xaytune.ray_tune.session import RaySession
from xaytune.records.journal import KnownEvents
from xaytune.records.sweep_folder import SweepFolder
from xaytune.search.method import SearchMethod
from xaytune.sweep.spec import SweepSpec


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        spec: The sweep.
        method: A new search method of it.
        sweep_folder: Its folder.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event.
        known: The events of its journal, if it was begun before.
        resume_errored: Whether trials that failed then are restarted.
    """

    spec: SweepSpec
    method: SearchMethod
    sweep_folder: SweepFolder
    session: RaySession
    listener: Listener | None
    known: KnownEvents | None = None
    resume_errored: bool = False
