"""Plots of a sweep's parameters: what matters, what good trials have in common, and each parameter alone."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xaytune.errors import SpecError
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.report.plot import COLORS, SCALE, Plot, dressed, label, with_values
from xaytune.report.printing import shortened
from xaytune.report.study import space_of, study_of
from xaytune.report.terms import number, value_text
from xaytune.sweep import values
from xaytune.sweep.domains import Categorical
from xaytune.sweep.numbers import told_apart
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.space import Space

# Characters of a choice beside others.
_SHORT = 16
# Too many of them cannot be told apart any more.
_MOST_SLICES = 8
_COLUMNS = 2
_NOTE = "Trials that were stopped count with the best value that they reached."


def parameter_plots(sweep: SweepState) -> Iterator[Plot]:
    """Yields the plots of the parameters that differ between trials which reached a value."""
    try:
        space = space_of(sweep)
    except SpecError:  # it names classes that cannot be imported here
        return
    trials = [trial for trial in sweep.trials.values() if trial.counted_value is not None]
    points = [space.values(trial.best_config) for trial in trials]
    varied = [parameter for parameter in space.parameters if _varies(parameter, points)]
    if len(trials) < 2 or not varied:
        return
    importances = _importances(sweep, space, [parameter.name for parameter in varied])
    if importances:
        caption = f"The share of each parameter in what sets good trials apart (PED-ANOVA). {_NOTE}"
        yield Plot("importance", "Hyperparameter importance", caption, _importance_figure(importances))
    caption = f"A line is a trial, the stronger the better; drag along an axis to select a range. {_NOTE}"
    parallel = _parallel_figure(trials, points, varied, sweep)
    yield Plot("parallel-coordinates", "Parallel coordinates", caption, parallel, 110 * (len(varied) + 1))
    shown = sorted(varied, key=lambda parameter: -importances.get(parameter.name, 0.0))[:_MOST_SLICES]
    caption = f"{sweep.spec['metric']} over each parameter alone; later trials are stronger. {_NOTE}"
    yield Plot("slices", "Slices", caption, _slices_figure(trials, points, shown, sweep))


def _varies(parameter: Parameter, points: Sequence[dict[str, Any]]) -> bool:
    """Whether trials differ in a parameter; one that some do not have differs."""
    return len({(type(value := point.get(parameter.name)), values.text(value)) for point in points}) > 1


def _importances(sweep: SweepState, space: Space, names: list[str]) -> dict[str, float]:
    """Importances by name, largest first; none where there is too little to tell."""
    if len(names) < 2:
        return {}
    try:
        study = study_of(sweep, space)
        if len(study.trials) < 4:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna's experimental features
            return optuna.importance.get_param_importances(study, params=names)
    except (RuntimeError, ValueError):  # all values are the same, or are none of the space
        return {}


def _importance_figure(importances: dict[str, float]) -> go.Figure:
    names = list(importances)[::-1]
    figure = go.Figure()
    figure.add_bar(
        x=[importances[name] for name in names],
        y=[label(name) for name in names],
        orientation="h",
        marker={"color": COLORS["running"]},
        text=[f"{importances[name]:.2f}" for name in names],
        textposition="auto",
    )
    figure.update_xaxes(title="importance", range=[0, 1])
    figure.update_yaxes(automargin=True)
    return dressed(figure, height=120 + 32 * len(names))


def _parallel_figure(
    trials: Sequence[TrialRecord],
    points: Sequence[dict[str, Any]],
    parameters: Sequence[Parameter],
    sweep: SweepState,
) -> go.Figure:
    """Parallel coordinates; Optuna's own draw a trace a trial, of which a browser cannot take a thousand."""
    reached = [trial.value for trial in trials]
    axes = [
        _axis(p, [point.get(p.name) for point in points], [p.name in point for point in points])
        for p in parameters
    ]
    figure = go.Figure()
    figure.add_parcoords(
        dimensions=[*axes, {"label": label(sweep.spec["metric"]), "values": reached, "tickformat": ".4~g"}],
        line={"color": reached, "coloraxis": "coloraxis"},
        labelfont={"size": 12},
    )
    figure = dressed(figure, height=460)
    scale = {"colorscale": SCALE, "reversescale": sweep.objective.sign < 0, "showscale": False}
    return figure.update_layout(margin={"t": 56, "l": 88, "r": 48}, coloraxis=scale)


def _axis(parameter: Parameter, given: Sequence[Any], exists: Sequence[bool]) -> dict[str, Any]:
    """An axis of the parallel coordinates; a trial without the parameter lies on the tick of a dash."""
    domain = parameter.domain
    known = [value for value, there in zip(given, exists, strict=True) if there]
    if isinstance(domain, Categorical):
        choices = _choices(domain, known)
        ticks = [float(tick) for tick in range(len(choices))]
        words = _words(choices)
        at = [float(_index(choices, value)) if there else -1.0 for value, there in zip(given, exists, strict=True)]
        absent = -1.0
    else:
        scale = math.log10 if domain.log else float
        low, high = scale(min([domain.low, *known])), scale(max([domain.high, *known]))
        ticks = [low + (high - low) * part / 4 for part in range(5)]
        words = told_apart(*(10**tick if domain.log else tick for tick in ticks))
        absent = low - (high - low) / 8
        at = [scale(value) if there else absent for value, there in zip(given, exists, strict=True)]
    if not all(exists):
        ticks, words = [absent, *ticks], ["-", *words]
    axis = {"label": label(parameter.name), "values": at, "tickvals": ticks, "ticktext": words}
    return {**axis, "range": [ticks[0], max(ticks[-1], ticks[0] + 1)] if len(ticks) < 2 else [ticks[0], ticks[-1]]}


def _choices(domain: Categorical, known: Sequence[Any]) -> list[Any]:
    """The choices of a domain, numbers ascending; and what trials had that is none of them, from earlier."""
    choices = list(domain.choices)
    for value in known:
        if not any(values.same(value, choice) for choice in choices):
            choices.append(value)
    return sorted(choices) if all(type(choice) in (int, float) for choice in choices) else choices


def _words(choices: Sequence[Any]) -> list[str]:
    """Writes choices as short as tells them apart: plots have little room."""
    floats = [choice for choice in choices if isinstance(choice, float)]
    told = iter(told_apart(*floats))
    words = [next(told) if isinstance(choice, float) else value_text(choice) for choice in choices]
    short = [shortened(word, _SHORT) for word in words]
    return short if len(set(short)) == len(set(words)) else words


def _index(choices: Sequence[Any], value: Any) -> int:
    return next(index for index, choice in enumerate(choices) if values.same(choice, value))


def _slices_figure(
    trials: Sequence[TrialRecord],
    points: Sequence[dict[str, Any]],
    parameters: Sequence[Parameter],
    sweep: SweepState,
) -> go.Figure:
    """The metric over each parameter, two beside each other: that can be read on a phone, too."""
    rows = -(-len(parameters) // _COLUMNS)
    titles = [label(parameter.name) for parameter in parameters]
    figure = make_subplots(
        rows,
        _COLUMNS,
        shared_yaxes=True,
        subplot_titles=titles,
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / rows,
    )
    for index, parameter in enumerate(parameters):
        there = [
            (t, point[parameter.name]) for t, point in zip(trials, points, strict=True) if parameter.name in point
        ]
        row, column = index // _COLUMNS + 1, index % _COLUMNS + 1
        domain = parameter.domain
        order: list[str] = []
        x = [value for _, value in there]
        if isinstance(domain, Categorical):
            choices = _choices(domain, x)
            order = [html.escape(word) for word in _words(choices)]
            x = [order[_index(choices, value)] for value in x]
        figure.add_scatter(
            x=x,
            y=[trial.value for trial, _ in there],
            mode="markers",
            marker={"color": [trial.number for trial, _ in there], "coloraxis": "coloraxis", "size": 7},
            hovertext=[
                f"trial {trial.number}: {number(trial.value)} at {label(value_text(v))}" for trial, v in there
            ],
            hoverinfo="text",
            showlegend=False,
            row=row,
            col=column,
        )
        kind = "category" if isinstance(domain, Categorical) else "log" if domain.log else "linear"
        angle = -35 if kind == "category" else None  # words lie beside each other on a phone
        sorting = {"categoryorder": "array", "categoryarray": order} if order else {}
        figure.update_xaxes(type=kind, tickangle=angle, automargin=True, row=row, col=column, **sorting)
    with_values(figure, sweep.spec["metric"], [trial.value for trial in trials if trial.value is not None])
    figure.for_each_yaxis(lambda axis: axis.update(title=None) if axis.plotly_name != "yaxis" else None)
    figure = dressed(figure, height=80 + 250 * rows)
    return figure.update_layout(coloraxis={"colorscale": SCALE, "showscale": False})
