"""The plots of a sweep, as plotly's figures."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.report.curves import (
    BestSoFar,
    DrawnCurve,
    Rung,
    curve_axis,
    learning_curves,
    progress,
    rungs,
)
from xaytune.report.parameters import parameter_plots
from xaytune.report.plot import COLORS, Plot, dressed, label, with_values
from xaytune.report.predicted import prediction_plots
from xaytune.report.terms import Terms, number
from xaytune.report.text import duration, status_word
from xaytune.report.timeline import AttemptSpan, Timeline, timeline
from xaytune.sweep import values
from xaytune.sweep.time_axis import TimeAxis


class Figures(dict[str, go.Figure]):
    """The figures of a sweep by name; a notebook shows them one below the other."""

    def _ipython_display_(self) -> None:
        for figure in self.values():
            figure.show()


def figures(results: Results) -> Figures:
    """Returns the report's figures by name, with their titles."""
    return Figures({plot.name: titled(plot) for plot in plots(results, list(results.events()))})


def titled(plot: Plot) -> go.Figure:
    """Returns the figure of a plot with its title on it."""
    return go.Figure(plot.figure).update_layout(
        title=plot.title, margin={"t": 84}, height=plot.figure.layout.height + 60
    )


def plots(results: Results, events: Sequence[Event]) -> Iterator[Plot]:
    """Yields the plots that there is something to show in.

    Args:
        results: The sweep.
        events: Of its journal.
    """
    sweep, terms = results.sweep, Terms(results.sweep)
    grown = progress(sweep, events, terms.told_in)
    if grown.best:
        caption = f"The best {terms.metric} that any trial had reached, over the time the sweep had run."
        yield Plot("progress", "Best value so far", caption, _progress_figure({sweep.name: grown}, terms.metric))
    curves = learning_curves(results)
    if curves:
        caption = "Each line is a trial and ends where it ended; a cross marks where it was stopped."
        yield Plot("learning-curves", "Learning curves", caption, _curves_figure(curves, sweep))
    if curve_axis(sweep) == sweep.axis:  # else curves are in steps, and nothing that was predicted has come
        yield from prediction_plots(events, curves, sweep)
    judged = rungs(sweep)
    if judged and sweep.spec["scheduler"]["algorithm"] != "fifo":
        caption = "Trials that continued, and that were stopped, wherever the scheduler judged."
        yield Plot("rungs", "What every rung cut", caption, _rungs_figure(judged, terms.told_in))
    yield from parameter_plots(sweep)
    worked = timeline(events)
    if worked.attempts:
        yield Plot("timeline", "Timeline", _timeline_words(worked), _timeline_figure(worked, sweep, terms), 320)


def comparison_plots(compared: dict[str, BestSoFar], metric: str) -> list[Plot]:
    """Returns the best value so far of several sweeps, over the time they ran and over what they trained.

    Args:
        compared: Their progress by name.
        metric: The metric of all of them.
    """
    unit = next(iter(compared.values())).axis.unit
    return [
        Plot(
            "best-over-time",
            "Best value over time",
            f"The best {metric} so far, over the time that each sweep had run.",
            _progress_figure(compared, metric),
        ),
        Plot(
            "best-over-training",
            "Best value over training spent",
            f"The best {metric} so far, over the {unit}s that all trials of a sweep had finished together.",
            _progress_figure(compared, metric, over_training=True),
        ),
    ]


def _progress_figure(compared: dict[str, BestSoFar], metric: str, *, over_training: bool = False) -> go.Figure:
    figure = go.Figure()
    unit = "seconds"
    # Colours that tell apart the sweeps, and dashes for who does not see colours.
    dashes = ("solid", "dash", "dot", "dashdot")
    colors = [COLORS[status] for status in ("completed", "failed", "running", "paused", "stopped")]
    for index, (name, grown) in enumerate(compared.items()):
        unit = f"{grown.axis.unit}s of all trials" if over_training else "seconds"
        figure.add_scatter(
            x=grown.trained if over_training else grown.seconds,
            y=grown.best,
            mode="lines+markers",
            line={"shape": "hv", "dash": dashes[index % len(dashes)], "color": colors[index % len(colors)]},
            marker={"size": 4},
            name=label(name),
        )
    figure.update_xaxes(title=unit)
    return dressed(with_values(figure, metric, [value for grown in compared.values() for value in grown.best]))


def _curves_figure(curves: Sequence[DrawnCurve], sweep: SweepState) -> go.Figure:
    figure = go.Figure()
    for status, color in reversed(COLORS.items()):  # what was completed on top
        of_status = [curve for curve in curves if status_word(curve.trial.status, sweep) == status]
        if not of_status:
            continue
        x: list[int | None] = []
        y: list[float | None] = []
        numbers: list[int | None] = []
        for curve in of_status:  # one trace for all: a trace each would take a browser seconds
            x += [*curve.times, None]
            y += [*curve.values, None]
            numbers += [curve.trial.number] * (len(curve.times) + 1)
        figure.add_scattergl(
            x=x,
            y=y,
            customdata=numbers,
            mode="lines+markers",
            marker={"size": 3},
            line={"width": 1.2, "color": color},
            opacity=0.75 if len(curves) < 100 else 0.45,
            name=f"{status} ({len(of_status)})",
            hovertemplate="trial %{customdata}: %{y:.4g} at %{x}<extra></extra>",
        )
    ends = [curve for curve in curves if curve.trial.status == "stopped"]
    figure.add_scattergl(
        x=[curve.times[-1] for curve in ends],
        y=[curve.values[-1] for curve in ends],
        customdata=[curve.trial.number for curve in ends],
        mode="markers",
        marker={"symbol": "x", "size": 7, "color": COLORS["stopped"]},
        hovertext=[html.escape(f"trial {curve.trial.number}: {curve.trial.reason}") for curve in ends],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_xaxes(title=curve_axis(sweep).unit)
    values = [value for curve in curves for value in curve.values]
    return dressed(with_values(figure, sweep.spec["metric"], values), height=460)


def _rungs_figure(judged: Sequence[Rung], axis: TimeAxis) -> go.Figure:
    names = [str(rung.time) for rung in judged]
    figure = go.Figure()
    for name, color, pattern, counted in (
        ("continued", COLORS["completed"], "", [len(rung.continued) for rung in judged]),
        ("stopped", COLORS["stopped"], "/", [len(rung.stopped) for rung in judged]),
    ):
        figure.add_bar(x=names, y=counted, name=name, marker={"color": color, "pattern": {"shape": pattern}})
    figure.update_xaxes(title=axis.unit, type="category")
    figure.update_yaxes(title="trials")
    figure.update_layout(barmode="stack")
    return dressed(figure, height=320)


def _timeline_words(worked: Timeline) -> str:
    places = len(worked.places)
    return (
        f"A row is a place for a trial, a bar a trial in it{_together_words(worked)}. From the first trial to the "
        f"last, {places} place{'' if places == 1 else 's'} had a trial {worked.training_share:.0%} of the time. "
        f"Starting up took {duration(worked.start_up)} before that, and is not shown."
    )


def _together_words(worked: Timeline) -> str:
    most = max(attempt.lane for attempt in worked.attempts)
    return f"; those of a process, which trained up to {most} at once, stand together" if most else ""


def _timeline_figure(worked: Timeline, sweep: SweepState, terms: Terms) -> go.Figure:
    attempts, places = worked.attempts, worked.places
    figure = go.Figure()
    for status, color in COLORS.items():
        shown = [attempt for attempt in attempts if status_word(attempt.how, sweep) == status]
        if not shown:
            continue
        figure.add_bar(
            base=[attempt.begun for attempt in shown],
            x=[attempt.ended - attempt.begun for attempt in shown],
            y=[attempt.place for attempt in shown],
            customdata=[attempt.trial for attempt in shown],
            orientation="h",
            marker={"color": color, "line": {"width": 0.5 if len(attempts) < 200 else 0, "color": "white"}},
            name=status,
            hovertext=[_attempt_words(attempt, status, terms) for attempt in shown],
            hoverinfo="text",
        )
    figure.update_xaxes(title="seconds since the first trial was started")
    figure.update_yaxes(categoryorder="array", categoryarray=places[::-1], type="category", automargin=True)
    processes = worked.processes
    if len(processes) < len(places):  # rows of trials that a process trains at once are thin, and share its name
        figure.update_yaxes(tickmode="array", tickvals=list(processes), ticktext=list(processes.values()))
    figure.update_layout(barmode="overlay", bargap=0.2)
    return dressed(figure, height=140 + 28 * len(processes) + 7 * (len(places) - len(processes)))


def _attempt_words(attempt: AttemptSpan, status: str, terms: Terms) -> str:
    took = duration(attempt.ended - attempt.begun)
    config = terms.configuration(values.read(dict(attempt.config)))
    return f"trial {attempt.trial}: {status} after {took}, {number(attempt.value)}<br>{html.escape(config)}"
