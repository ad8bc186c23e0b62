"""Plots of what a search method predicted: the curves that it expected, and what came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.report.curves import DrawnCurve
from xaytune.report.plot import COLORS, SCALE, Plot, dressed, label, with_values
from xaytune.report.terms import Terms, number

# Trials that were stopped, and others, that can be told apart in one plot.
_SHOWN = 5
# Thousands of bars, which lie upon each other, are not to hide the points.
_BARS = "rgba(138, 143, 152, 0.3)"


@dataclass(frozen=True)
class _Prediction:
    """What a search method expected of a trial at a later time.

    Attributes:
        time: When that is: epochs or steps finished.
        value: The value that was expected.
        deviation: Its standard deviation.
    """

    time: int
    value: float
    deviation: float


@dataclass(frozen=True)
class _Verdict:
    """A decision on a trial, with what was expected of it.

    Attributes:
        trial: The trial's number.
        made: When it was made: epochs or steps finished.
        value: The value of the trial there.
        stops: Whether the trial was stopped.
        predicted: By time, ascending.
    """

    trial: int
    made: int
    value: float
    stops: bool
    predicted: list[_Prediction]


def prediction_plots(events: Iterable[Event], curves: Sequence[DrawnCurve], sweep: SweepState) -> Iterator[Plot]:
    """Yields the plots of what was predicted, where the search method predicts.

    Args:
        events: Of the sweep: its verdicts have ``predicted`` in their details, (time, value, deviation) each.
        curves: What came.
        sweep: The sweep.
    """
    terms, reached = Terms(sweep), {curve.trial.number: curve for curve in curves}
    verdicts = [verdict for verdict in _verdicts(events, sweep) if verdict.trial in reached]
    told = _telling(verdicts)
    if told:
        caption = (
            "Lines are what came. Dotted is what was predicted when a trial was stopped or, if it was not, when "
            f"it was first judged; bars are two deviations. The {_SHOWN} trials that were stopped last are shown, "
            f"and the {_SHOWN} others that were judged last; a filter of the leaderboard selects other trials."
        )
        yield Plot("predicted-curves", "Predicted curves", caption, _curves_figure(told, reached, terms))
    expected = _came(verdicts, reached)
    if expected:
        caption = _calibration_words(expected)
        figure = _calibration_figure(expected, terms)
        yield Plot("predictions", "What was predicted, and what came", caption, figure)


def _verdicts(events: Iterable[Event], sweep: SweepState) -> Iterator[_Verdict]:
    for event in events:
        predicted = (event.get("details") or {}).get("predicted") if event["event"] == "verdict" else None
        if predicted:
            yield _Verdict(
                event["trial"],
                sweep.axis.in_event(event),
                event["value"],
                event["decision"] == "stop",
                [_Prediction(*entry) for entry in predicted],
            )


def _telling(verdicts: Iterable[_Verdict]) -> list[_Verdict]:
    """The verdict of each trial that stopped it, or else its first; the trials judged last come last."""
    told: dict[int, _Verdict] = {}
    for verdict in verdicts:
        before = told.pop(verdict.trial, None)
        told[verdict.trial] = verdict if before is None or verdict.stops else before
    return list(told.values())


def _curves_figure(told: Sequence[_Verdict], reached: Mapping[int, DrawnCurve], terms: Terms) -> go.Figure:
    """Two traces for each trial, of which those of a few are visible: the page's filter selects others."""
    room = {True: _SHOWN, False: _SHOWN}
    visible = set()
    for verdict in reversed(told):
        if room[verdict.stops]:
            room[verdict.stops] -= 1
            visible.add(verdict.trial)
    figure = go.Figure()
    for verdict in told:
        _add_trial(figure, verdict, reached[verdict.trial], terms, visible=verdict.trial in visible)
    # What is predicted lies at times that grow by a factor.
    judged = {time for verdict in told for time in (verdict.made, *(one.time for one in verdict.predicted))}
    figure.update_xaxes(title=terms.told_in.unit, type="log", tickvals=sorted(judged))
    values = [value for verdict in told for value in reached[verdict.trial].values]
    return dressed(with_values(figure, terms.metric, values), height=460).update_layout(meta={"shown": _SHOWN})


def _add_trial(figure: go.Figure, verdict: _Verdict, curve: DrawnCurve, terms: Terms, *, visible: bool) -> None:
    color, at = COLORS[curve.trial.status], terms.told_in.at
    about = {"meta": {"trial": verdict.trial, "stopped": verdict.stops}, "visible": visible, "showlegend": False}
    figure.add_scatter(
        x=curve.times,
        y=curve.values,
        mode="lines+markers",
        line={"color": color, "width": 1.6},
        marker={"size": 4},
        hovertemplate=f"trial {verdict.trial}, {curve.trial.status}: %{{y:.4g}} at %{{x}}<extra></extra>",
        **about,
    )
    how = "stopped" if verdict.stops else "judged"
    figure.add_scatter(
        x=[verdict.made, *(one.time for one in verdict.predicted)],
        y=[verdict.value, *(one.value for one in verdict.predicted)],
        error_y={"array": [0, *(2 * one.deviation for one in verdict.predicted)], "thickness": 1, "width": 3},
        mode="lines+markers",
        line={"color": color, "width": 1.2, "dash": "dot"},
        marker={"size": 5, "symbol": "circle-open"},
        hovertext=[
            f"trial {verdict.trial}, {how} at {at(verdict.made)}: {number(verdict.value)}",
            *(
                f"trial {verdict.trial}, {how} at {at(verdict.made)}: "
                f"{number(one.value)} ± {number(one.deviation)} expected at {at(one.time)}"
                for one in verdict.predicted
            ),
        ],
        hoverinfo="text",
        **about,
    )


@dataclass(frozen=True)
class _Came:
    """A prediction, and the value that came."""

    verdict: _Verdict
    predicted: _Prediction
    value: float


def _came(verdicts: Iterable[_Verdict], reached: Mapping[int, DrawnCurve]) -> list[_Came]:
    values = {trial: dict(zip(curve.times, curve.values, strict=True)) for trial, curve in reached.items()}
    return [
        _Came(verdict, one, values[verdict.trial][one.time])
        for verdict in verdicts
        for one in verdict.predicted
        if one.time in values[verdict.trial]
    ]


def _calibration_words(expected: Sequence[_Came]) -> str:
    within = sum(abs(one.value - one.predicted.value) <= 2 * one.predicted.deviation for one in expected)
    return (
        "A point is a prediction for a trial that trained on: on the line it came true. Bars are two deviations; "
        f"{within} of {len(expected)} came within them."
    )


def _calibration_figure(expected: Sequence[_Came], terms: Terms) -> go.Figure:
    ends = [value for one in expected for value in (one.predicted.value, one.value)]
    low, high = min(ends), max(ends)
    figure = go.Figure()
    figure.add_scatter(
        x=[one.predicted.value for one in expected],
        y=[one.value for one in expected],
        error_x={
            "array": [2 * one.predicted.deviation for one in expected],
            "thickness": 0.7,
            "width": 0,
            "color": _BARS,
        },
        mode="markers",
        marker={"color": [one.predicted.time for one in expected], "coloraxis": "coloraxis", "size": 7},
        hovertext=[_calibration_hover(one, terms) for one in expected],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": COLORS["pending"], "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(title=f"{label(terms.metric)}, as predicted")
    figure.update_yaxes(title=f"{label(terms.metric)}, as it came")
    scale = {"colorscale": SCALE, "colorbar": {"title": terms.told_in.unit, "thickness": 10}}
    return dressed(figure, height=420).update_layout(coloraxis=scale)


def _calibration_hover(one: _Came, terms: Terms) -> str:
    predicted, at = one.predicted, terms.told_in.at
    return (
        f"trial {one.verdict.trial}, at {at(one.verdict.made)}: {number(predicted.value)} ± "
        f"{number(predicted.deviation)} expected at {at(predicted.time)}, {number(one.value)} came"
    )
