"""Commands that look at sweeps, while they run and after: from their journals and histories alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from xaytune.cli.clusters import follow_on_cluster, print_status_on_cluster
from xaytune.cli.ending import end_as
from xaytune.cli.options import (
    Cluster,
    as_json_option,
    cluster_options,
    print_json,
    say,
    storage_option,
    sweep_argument,
)
from xaytune.errors import JournalError, RemoteError
from xaytune.records.export import FORMATS, Format, export
from xaytune.records.journal import FILE_NAME, JournalTail
from xaytune.records.remote import concealed
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import SweepFolder, child_of, find_sweep, sweeps_in
from xaytune.report import text
from xaytune.report.lineage import lineage_lines
from xaytune.report.loading import lines_to_load
from xaytune.report.terms import Terms

if TYPE_CHECKING:
    from xaytune.report.templating import Page

# Seconds between two readings of a journal that is followed.
_FOLLOW_S = 0.5
_output_folder = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to, by default SWEEP-export.",
)


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
    started = text.age(time.time() - sweep.started) if sweep.started else "-"  # virtual time begins at 0
    return sweep.name, sweep.state, text.share(sweep), worth, started


def _described(sweep: SweepState) -> dict[str, object]:
    return {**sweep.to_dict(), "metric": sweep.spec["metric"], "started": sweep.started, "ended": sweep.ended}


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@sweep_argument
@storage_option
@as_json_option
@click.option("--follow", is_flag=True, help="Show it until it ends, as `run` does.")
@cluster_options
def status(sweep: str, storage: str, as_json: bool, follow: bool, cluster: Cluster) -> None:
    """Shows how far a SWEEP is.

    SWEEP is a folder, a URI, or a name in the storage. With --address or --cluster, it is the name of a sweep
    that was launched there.
    """
    if follow and as_json:
        raise click.UsageError("--follow shows a table, --json prints once: choose one")
    if cluster.is_given:
        (follow_on_cluster if follow else print_status_on_cluster)(sweep, as_json, cluster)
        return
    sweep_folder = find_sweep(sweep, storage)
    if follow:
        _follow(sweep_folder)
        return
    results = Results(sweep_folder)
    if as_json:
        print_json(results.sweep.to_dict())
    else:
        say(text.status(results.sweep))


def _follow(sweep_folder: SweepFolder) -> None:
    """Shows a sweep from its journal until it has ended, or its driver is gone."""
    from xaytune.report.live import LiveView

    Results(sweep_folder)  # tells what is wrong with it
    tail = JournalTail(sweep_folder.local / FILE_NAME)
    state = SweepState(str(sweep_folder), tail.new(), sweep_folder.address)
    with LiveView() as view:
        view(state, {"event": "sweep", "state": "running"})
        while state.state == "running":
            time.sleep(_FOLLOW_S)
            with contextlib.suppress(OSError):  # a storage that does not answer now
                sweep_folder.fetch_journal()
            for event in tail.new():
                state.apply(event)
                view(state, event)
            state.notice_loss(sweep_folder.is_written)
    end_as(state, as_json=False)


@click.command()
@sweep_argument
@storage_option
@as_json_option
@click.option("--config", "only_config", is_flag=True, help="Print the configuration to train again, as JSON.")
def best(sweep: str, storage: str, as_json: bool, only_config: bool) -> None:
    """Shows the best trial of a SWEEP and its checkpoint.

    The best trial is the one whose metric reached the best value. The lines of Python that are shown load its
    checkpoint into a model that is built as it was for training. The configuration to train again may be another
    one: once three trials have been trained in full, it is the best of those.
    """
    if only_config and as_json:
        raise click.UsageError("--config prints JSON already: leave out --json")
    results = Results(find_sweep(sweep, storage))
    found, recommended = results.sweep.best, results.recommended
    if found is None or recommended is None:
        raise JournalError(f"{sweep}: {results.sweep.why_no_best}")
    if only_config:
        print_json(recommended.trial.written_best_config)
    elif as_json:
        print_json(found.to_dict())
    else:
        say(text.best(results.sweep))
        for line in lines_to_load(found.checkpoint):
            say(f"    {line}")
        for line in lineage_lines(results.events(), found, Terms(results.sweep)):
            say(line)
        if recommended.trial.number != found.number:
            say(
                f"to train again: trial {recommended.trial.number} (best --config prints it): {recommended.reason}"
            )


@click.command()
@sweep_argument
@click.argument("trial", type=int)
@storage_option
def why(sweep: str, trial: int, storage: str) -> None:
    """Tells what happened to a TRIAL of a SWEEP, and why.

    It shows what the trial was compared with at each decision, what it lost and from where it resumed, and how it
    ended.
    """
    from xaytune.report.story import tell

    results = Results(find_sweep(sweep, storage))
    record = results.sweep.trials.get(trial)
    if record is None:
        raise JournalError(f"{sweep} has no trial {trial}; it has {len(results.trials)} so far, from 0")
    say(tell(record, results.sweep, results.events()))


@click.command()
@sweep_argument
@storage_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="FILE, by default SWEEP-report.html; or a FOLDER, which gets plotly's bundle beside the page.",
)
@click.option("--png", is_flag=True, help="Write the plots as pictures too, beside FILE or in FOLDER/plots.")
def report(sweep: str, storage: str, output: Path | None, png: bool) -> None:
    """Writes a SWEEP as one HTML file that works offline.

    It has plots, a leaderboard that can be filtered, where the time went, and the story of each trial.
    """
    from xaytune.report.figures import plots
    from xaytune.report.page import page
    from xaytune.report.png import write_pictures

    results = Results(find_sweep(sweep, storage))
    output = output or Path(f"{results.sweep.name}-report.html")
    events = list(results.events())
    drawn = list(plots(results, events))
    written = _write(output, lambda whole: page(results, drawn, events, whole=whole))
    if png:
        folder = written.with_suffix("") if written == output else output / "plots"
        with _writing(folder):
            for picture in write_pictures(drawn, folder):
                click.echo(picture)


@click.command("export")
@sweep_argument
@storage_option
@click.option(
    "--format", type=click.Choice(FORMATS), default="csv", show_default=True, help="Format of the tables."
)
@_output_folder
def export_(sweep: str, storage: str, format: str, output: Path | None) -> None:
    """Writes the trials of a SWEEP and their steps as tables."""
    results = Results(find_sweep(sweep, storage))
    output = output or Path(f"{results.sweep.name}-export")
    with _writing(output):
        for written in export(results, output, cast("Format", format)):
            click.echo(written)


@click.command()
@click.argument("sweeps", nargs=-1, required=True)
@storage_option
@click.option("--output", type=click.Path(path_type=Path), help="HTML file or folder of the comparison's page.")
def compare(sweeps: tuple[str, ...], storage: str, output: Path | None) -> None:
    """Compares SWEEPS over time and over training."""
    from rich.console import Console

    from xaytune.report.comparison import Comparison

    compared = [Results(find_sweep(sweep, storage)) for sweep in sweeps]
    if len({results.path.absolute() for results in compared}) < max(2, len(compared)):
        raise click.UsageError("name two different sweeps at least, each once")
    comparison = Comparison(compared)
    console = Console(highlight=False)
    for table in comparison.tables():
        width = max(console.width, console.measure(table).minimum)
        console.print(table, "", width=width, crop=False)
    output = output or Path("-".join([*(results.sweep.name for results in compared), "comparison.html"]))
    _write(output, comparison.page)


def _write(output: Path, page: Page) -> Path:
    """Writes a page, and returns its file."""
    from xaytune.report.templating import write_page

    with _writing(output):
        written = write_page(page, output)
    say(str(written))
    return written


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Says in one message that an output cannot be written."""
    try:
        yield
    except RemoteError:
        raise  # what is read for it
    except OSError as error:
        message = f"{output} cannot be written: {error.strerror}; name another place with --output"
        raise click.ClickException(message) from None


@click.command()
@sweep_argument
@storage_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
def dashboard(sweep: str, storage: str, host: str, port: int) -> None:
    """Serves a SWEEP in optuna-dashboard until Ctrl-C."""
    from xaytune.report.dashboard import serve

    sweep_folder = find_sweep(sweep, storage)
    serve(sweep_folder, host, port, lambda url: click.echo(f"{url} (Ctrl-C ends it)"))


COMMANDS = (list_, status, best, why, report, compare, export_, dashboard)
