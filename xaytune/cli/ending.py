"""How commands that run or follow a sweep end."""

from __future__ import annotations

import sys
from typing import NoReturn

from xaytune.cli.options import print_json
from xaytune.records.state import SweepState

DONE, SWEEP_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def end_as(sweep: SweepState, as_json: bool, stopping: bool = False) -> NoReturn:
    """Exits with the code of how a sweep ended.

    Args:
        sweep: The sweep.
        as_json: Whether its state is printed as JSON.
        stopping: Whether it was to end early: then that is success.
    """
    if as_json:
        print_json(sweep.to_dict())
    if sweep.state == "completed" or (stopping and sweep.state == "interrupted"):
        sys.exit(DONE)
    sys.exit(INTERRUPTED if sweep.state == "interrupted" else SWEEP_FAILED)
