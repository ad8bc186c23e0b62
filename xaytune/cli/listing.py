"""The command ``list``: the sweeps of a storage."""

from __future__ import annotations

import time

import click

from xaytune.cli.options import as_json_option, print_json, say, storage_option
from xaytune.errors import JournalError
from xaytune.records.remote import concealed
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import child_of, sweeps_in
from xaytune.report.terms import Terms
from xaytune.report.text import age, share

__all__ = ["COMMANDS"]


@click.command("list", epilog="Example: xaytune list --storage s3://bucket/sweeps")
@storage_option
@as_json_option
def list_(storage: str, as_json: bool) -> None:
    """Lists the sweeps of a storage, newest first."""
    sweeps: list[SweepState] = []
    damaged: list[tuple[str, str]] = []
    for name in sweeps_in(storage):
        try:
            sweeps.append(Results(child_of(storage, name)).sweep)
        except JournalError as error:
            damaged.append((name, str(error)))
    for name, problem in damaged:
        say(f"{name}: {problem}", err=True)
    sweeps.sort(key=lambda sweep: sweep.started or 0.0, reverse=True)
    if as_json:
        print_json([_described(sweep) for sweep in sweeps])
        return
    if not sweeps and not damaged:
        say(f"there is no sweep in {concealed(storage)}; name another folder with --storage")
    elif sweeps:
        _print_table([("sweep", "state", "trials", "best", "started"), *map(_row, sweeps)])


def _row(sweep: SweepState) -> tuple[str, ...]:
    best, terms = sweep.best, Terms(sweep)
    worth = terms.worth(best.value) if best is not None else "-"
    started = age(time.time() - sweep.started) if sweep.started else "-"  # virtual time begins at 0
    return sweep.name, sweep.state, share(sweep), worth, started


def _described(sweep: SweepState) -> dict[str, object]:
    return {**sweep.to_dict(), "metric": sweep.spec["metric"], "started": sweep.started, "ended": sweep.ended}


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


COMMANDS = (list_,)
