"""The plots of a sweep, as plotly's figures."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.visualization import plot_slice

from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.report.curves import (
    Attempt,
    Curve,
    Progress,
    Rung,
    attempts,
    learning_curves,
    progress,
    rungs,
    time_axis,
)
from xaytune.report.study import space_of, study_of
from xaytune.report.text import configuration, duration, number
from xaytune.sweep.domains import Categorical
from xaytune.sweep.space import Parameter

__all__ = ["COLORS", "Plot", "comparison_plots", "plots"]

COLORS = {
    "completed": "#1a7f5a",
    "stopped": "#c98a1b",
    "failed": "#c0392b",
    "running": "#2f6fb2",
    "paused": "#7d6bb0",
    "pending": "#8a8f98",
}
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#1c2330"}
# Too many of them cannot be told apart any more, and take long to draw.
_MOST_SLICES = 8
# Values whose largest is so many times their smallest are drawn by powers of ten.
_WIDE = 200


@dataclass(frozen=True)
class Plot:
    """A plot of the report.

    Attributes:
        name: For files and links.
        title: Its heading.
        caption: What it shows.
        figure: The plot.
        min_width: Pixels below which it cannot be read: in a narrower window it is scrolled.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure
    min_width: int = 300


def plots(results: Results) -> Iterator[Plot]:
    """Yields the plots that there is something to show in."""
    sweep = results.sweep
    grown = progress(results)
    if grown.best:
        yield Plot(
            "progress",
            "Best value so far",
            f"The best {sweep.spec['metric']} that any trial had reached, over the time the sweep had run.",
            _progress_figure({sweep.name: grown}, sweep, over="seconds"),
        )
    curves = learning_curves(results)
    if curves:
        caption = "Each line is a trial and ends where it ended; a cross marks where it was stopped."
        yield Plot("learning-curves", "Learning curves", caption, _curves_figure(curves, sweep))
    judged = rungs(sweep)
    if judged:
        caption = "Trials that were let go on, and that were stopped, wherever the scheduler judged."
        yield Plot("rungs", "What every rung cut", caption, _rungs_figure(judged, sweep))
    yield from _parameter_plots(sweep)
    worked = attempts(results.events())
    if worked:
        caption = f"A row is a process, a bar a trial in it. {_share_words(worked)}"
        yield Plot("timeline", "Timeline", caption, _timeline_figure(worked, sweep), 560)


def training_share(worked: Sequence[Attempt]) -> float:
    """Returns the share of their time, from the first trial to the last, in which processes had a trial."""
    begun, ended = min(a.begun for a in worked), max(a.ended for a in worked)
    workers = len({attempt.worker for attempt in worked})
    busy = sum(attempt.ended - attempt.begun for attempt in worked)
    return busy / (workers * (ended - begun)) if ended > begun else 1.0


def _share_words(worked: Sequence[Attempt]) -> str:
    workers = len({attempt.worker for attempt in worked})
    share = f"{training_share(worked):.0%} of the time"
    return f"From the first trial to the last, {workers} processes had a trial to train {share}."


def _parameter_plots(sweep: SweepState) -> Iterator[Plot]:
    study, space = study_of(sweep), space_of(sweep)
    varied = [p.name for p in space.parameters if len({str(t.params.get(p.name)) for t in study.trials}) > 1]
    if len(study.trials) < 2 or not varied:
        return
    metric, note = sweep.spec["metric"], "Trials that were stopped count with the best value that they reached."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna's experimental features
        importances = _importances(study, varied)
        if importances:
            caption = f"The share of each parameter in what sets good trials apart (PED-ANOVA). {note}"
            yield Plot("importance", "Hyperparameter importance", caption, _importance_figure(importances))
        caption = f"A line is a trial, darker where it is better; drag along an axis to select a range. {note}"
        parallel = _parallel_figure(study, [p for p in space.parameters if p.name in varied], sweep)
        yield Plot("parallel-coordinates", "Parallel coordinates", caption, parallel, 120 * (len(varied) + 1))
        shown = sorted(varied, key=lambda name: -importances.get(name, 0.0))[:_MOST_SLICES]
        figure = plot_slice(study, params=shown, target_name=metric)
        figure.update_traces(marker={"colorscale": "Blues", "line": {"width": 0}})
        figure.for_each_trace(_as_they_are)
        _with_values(figure, sweep, [trial.value for trial in study.trials if trial.value is not None])
        caption = f"{metric} over each parameter alone; later trials are darker. {note}"
        yield Plot("slices", "Slices", caption, _dressed(figure, height=340), 200 * len(shown))


def _as_they_are(trace: go.Scatter) -> None:
    """Lets categories that look like HTML be drawn as they are."""
    if any(isinstance(value, str) for value in trace.x):
        trace.x = [html.escape(str(value)) for value in trace.x]


def _importances(study: optuna.Study, names: list[str]) -> dict[str, float]:
    """Importances by name, largest first; none where there is too little to tell."""
    if len(names) < 2 or len(study.trials) < 4:
        return {}
    try:
        return optuna.importance.get_param_importances(study, params=names)
    except (RuntimeError, ValueError):  # all values are the same
        return {}


def comparison_plots(compared: dict[str, Progress], sweep: SweepState) -> list[Plot]:
    """Returns the best value so far of several sweeps, over the time they ran and over what they trained.

    Args:
        compared: Their progress by name.
        sweep: One of them.
    """
    metric = sweep.spec["metric"]
    return [
        Plot(
            "best-over-time",
            "Best value over time",
            f"The best {metric} so far, over the time that each sweep had run.",
            _progress_figure(compared, sweep, over="seconds"),
        ),
        Plot(
            "best-over-training",
            "Best value over training spent",
            f"The best {metric} so far, over the epochs that all trials of a sweep had finished together.",
            _progress_figure(compared, sweep, over="epochs"),
        ),
    ]


def _progress_figure(compared: dict[str, Progress], sweep: SweepState, over: str) -> go.Figure:
    figure = go.Figure()
    for name, grown in compared.items():
        x = getattr(grown, over)
        figure.add_scatter(
            x=x, y=grown.best, mode="lines+markers", line={"shape": "hv"}, marker={"size": 4}, name=name
        )
    figure.update_xaxes(title="seconds" if over == "seconds" else "epochs of all trials")
    return _dressed(_with_values(figure, sweep, [value for grown in compared.values() for value in grown.best]))


def _with_values(figure: go.Figure, sweep: SweepState, values: Sequence[float]) -> go.Figure:
    """Draws the metric upwards: by powers of ten where its values are of very different size."""
    known = [value for value in values if math.isfinite(value)]
    wide = bool(known) and min(known) > 0 and max(known) > _WIDE * min(known)
    return figure.update_yaxes(title=html.escape(sweep.spec["metric"]), type="log" if wide else "linear")


def _curves_figure(curves: Sequence[Curve], sweep: SweepState) -> go.Figure:
    figure = go.Figure()
    for status, color in COLORS.items():
        of_status = [curve for curve in curves if curve.trial.status == status and curve.times]
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
            opacity=0.75,
            name=f"{status} ({len(of_status)})",
            hovertemplate="trial %{customdata}: %{y:.4g} at %{x}<extra></extra>",
        )
    ends = [curve for curve in curves if curve.trial.status == "stopped" and curve.times]
    figure.add_scattergl(
        x=[curve.times[-1] for curve in ends],
        y=[curve.values[-1] for curve in ends],
        mode="markers",
        marker={"symbol": "x", "size": 7, "color": COLORS["stopped"]},
        hovertext=[html.escape(f"trial {curve.trial.number}: {curve.trial.reason}") for curve in ends],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_xaxes(title="epoch" if time_axis(sweep) == "epoch" else "step")
    return _dressed(_with_values(figure, sweep, [v for curve in curves for v in curve.values]), height=460)


def _rungs_figure(judged: Sequence[Rung], sweep: SweepState) -> go.Figure:
    names = [str(rung.time) for rung in judged]
    figure = go.Figure()
    for name, color, counted in (
        ("went on", COLORS["completed"], [len(rung.went_on) for rung in judged]),
        ("stopped", COLORS["stopped"], [len(rung.stopped) for rung in judged]),
    ):
        figure.add_bar(x=names, y=counted, name=name, marker={"color": color})
    unit = "step" if sweep.spec["scheduler"].get("time_attr") == "global_step" else "epoch"
    figure.update_xaxes(title=unit, type="category")
    figure.update_yaxes(title="trials")
    figure.update_layout(barmode="stack")
    return _dressed(figure, height=320)


def _parallel_figure(study: optuna.Study, parameters: Sequence[Parameter], sweep: SweepState) -> go.Figure:
    """Parallel coordinates; Optuna's own draw a trace a trial, of which a browser cannot take a thousand."""
    objective = [float(trial.value or 0.0) for trial in study.trials]
    axes = [_axis(p, [trial.params.get(p.name) for trial in study.trials]) for p in parameters]
    figure = go.Figure()
    figure.add_parcoords(
        dimensions=[*axes, {"label": sweep.spec["metric"], "values": objective}],
        line={"color": objective, "colorscale": "Blues", "reversescale": not sweep.maximize, "showscale": True},
        labelfont={"size": 12},
    )
    return _dressed(figure, height=460).update_layout(margin={"t": 56, "l": 88, "r": 48})


def _axis(parameter: Parameter, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of the parallel coordinates; a trial without the parameter lies on the tick of a dash."""
    domain, missing = parameter.domain, None in values
    if isinstance(domain, Categorical):
        words = [*map(str, domain.choices)]
        ticks = [float(tick) for tick in range(len(words))]
        at = [float(words.index(str(value))) if value is not None else -1.0 for value in values]
        absent = -1.0
    else:
        scale = math.log10 if domain.log else float
        low, high = scale(domain.low), scale(domain.high)
        ticks = [low + (high - low) * part / 4 for part in range(5)]
        words = [number(10**tick if domain.log else tick) for tick in ticks]
        absent = low - (high - low) / 8
        at = [absent if value is None else scale(value) for value in values]
    if missing:
        ticks, words = [absent, *ticks], ["-", *words]
    return {
        "label": parameter.name,
        "values": at,
        "tickvals": ticks,
        "ticktext": words,
        "range": [ticks[0], ticks[-1]],
    }


def _importance_figure(importances: dict[str, float]) -> go.Figure:
    names = list(importances)[::-1]
    figure = go.Figure()
    figure.add_bar(
        x=[importances[name] for name in names],
        y=names,
        orientation="h",
        marker={"color": COLORS["running"]},
        text=[f"{importances[name]:.2f}" for name in names],
        textposition="auto",
    )
    figure.update_xaxes(title="importance", range=[0, 1])
    return _dressed(figure, height=120 + 32 * len(names))


def _timeline_figure(worked: Sequence[Attempt], sweep: SweepState) -> go.Figure:
    begun = sweep.started or worked[0].begun
    workers = list(dict.fromkeys(attempt.worker for attempt in worked))
    figure = go.Figure()
    for status, color in COLORS.items():
        shown = [attempt for attempt in worked if attempt.how == status]
        if not shown:
            continue
        figure.add_bar(
            base=[attempt.begun - begun for attempt in shown],
            x=[attempt.ended - attempt.begun for attempt in shown],
            y=[attempt.worker for attempt in shown],
            orientation="h",
            marker={"color": color, "line": {"width": 0.5 if len(worked) < 200 else 0, "color": "white"}},
            name=status,
            hovertext=[_attempt_words(attempt, sweep) for attempt in shown],
            hoverinfo="text",
        )
    figure.update_xaxes(title="seconds since the sweep was begun")
    figure.update_yaxes(categoryorder="array", categoryarray=workers[::-1], type="category", automargin=True)
    figure.update_layout(barmode="overlay", bargap=0.2)
    return _dressed(figure, height=140 + 28 * len(workers))


def _attempt_words(attempt: Attempt, sweep: SweepState) -> str:
    trial = sweep.trials[attempt.trial]
    took = duration(attempt.ended - attempt.begun)
    shown = configuration(trial.config)
    return f"trial {attempt.trial}: {attempt.how} after {took}, {number(trial.value)}<br>{html.escape(shown)}"


def _dressed(figure: go.Figure, height: int = 380) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        title=None,
        font=_FONT,
        width=None,
        height=height,
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    return figure
