"""The report on a phone, by night, of hundreds of trials, of any space; filtered; in a file and in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page

from tests.report.journals import Written, simulated, spec
from xaytune.cli.main import main
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results
from xaytune.records.trial_record import TrialRecord
from xaytune.report.figures import plots
from xaytune.report.page import page
from xaytune.report.plot import COLORS, Plot
from xaytune.report.timeline import timeline

Open = Callable[..., Page]
SPACE = {
    "lr": {"loguniform": [1e-4, 0.1]},
    "optimizer": {"choice": ["sgd", "adamw"]},
    "momentum": {"uniform": [0, 1], "when": {"optimizer": "sgd"}},
    "layers": {"choice": [None, [64], [64, 64]]},
    "data": "letters",
}


def plots_of(results: Results) -> list[Plot]:
    return list(plots(results, list(results.events())))


def report(results: Results) -> str:
    return page(results, plots_of(results), list(results.events()))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """500 trials."""
    return simulated(tmp_path_factory.mktemp("many") / "many", space=SPACE, num_samples=500)


@pytest.fixture(scope="module")
def file(many: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(many))
    return path


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Open]:
    """Opens a page offline, and sees to it that nothing goes wrong in it."""
    problems: list[str] = []
    tabs = []

    def open_page(path: Path, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(path.as_uri())
        tabs.append(tab)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert problems == []


def test_a_report_of_500_trials_fits_a_phone_and_draws_all_its_plots(file: Path, opened: Open) -> None:
    tab = opened(file, width=400)
    for place in tab.locator("[data-plot]").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    first = tab.locator("#leaderboard tbody tr").first
    assert first.evaluate("row => row.scrollWidth <= row.clientWidth")  # a card: nothing is beside the screen
    assert "optimizer" in str(first.evaluate("row => [...row.cells].map(cell => cell.dataset.name).join(' ')"))


def brightness(tab: Page, script: str) -> float:
    return sum(map(float, re.findall(r"\d+", str(tab.evaluate(script)))[:3])) / 3


def test_by_night_the_page_and_its_plots_are_dark_and_follow_a_change(file: Path, opened: Open) -> None:
    paper = "getComputedStyle(document.querySelector('section')).backgroundColor"
    ticks = "getComputedStyle(document.querySelector('[data-plot=progress] .xtick text')).fill"
    tab = opened(file, scheme="dark")
    tab.locator("[data-plot=progress]").scroll_into_view_if_needed()
    tab.locator("[data-plot=progress] .xtick").first.wait_for()
    assert brightness(tab, paper) < 60
    assert brightness(tab, ticks) > 180
    tab.emulate_media(color_scheme="light")
    tab.wait_for_function(f"{ticks} !== 'rgb(242, 245, 250)'")
    assert brightness(tab, paper) > 240
    assert brightness(tab, ticks) < 110


FILTERS: dict[str, Callable[[TrialRecord], bool]] = {
    "lr > 0.01": lambda trial: trial.config["lr"] > 0.01,
    "optimizer = sgd, momentum <= 0.5": lambda trial: trial.config.get("momentum", 1) <= 0.5,
    "stopped": lambda trial: trial.status == "stopped",
    # A comma within brackets does not part two conditions.
    "layers = [64, 64]": lambda trial: trial.config["layers"] == [64, 64],
}


def test_configurations_can_be_filtered_and_so_are_their_curves(many: Results, file: Path, opened: Open) -> None:
    tab = opened(file)
    for typed, holds in FILTERS.items():
        tab.locator("#filter").fill(typed)
        expected = {trial.number for trial in many.trials if holds(trial)}
        assert 0 < len(expected) < 500
        rows = tab.locator("#leaderboard tbody tr:visible")
        assert {*rows.evaluate_all("rows => rows.map(row => Number(row.dataset.trial))")} == expected
        assert tab.locator("#matching").inner_text() == f"{len(expected)} of 500 trials"
        drawn = tab.evaluate(
            "figures['learning-curves'].data.flatMap(t => t.customdata.filter((_, i) => t.y[i] !== null))"
        )
        assert set(drawn) == expected


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("foo = 3", "there is no column foo"),
        ("score < abc", "abc is no number"),
        ("score >", "nothing is no number"),
    ],
)
def test_a_filter_that_cannot_be_understood_says_so_and_hides_nothing(
    file: Path, opened: Open, typed: str, told: str
) -> None:
    tab = opened(file)
    tab.locator("#filter").fill(typed)
    assert tab.locator("#matching").inner_text() == told
    assert tab.locator("#leaderboard tbody tr:visible").count() == 500


def test_in_a_folder_plotly_lies_beside_the_page(many: Results, tmp_path: Path, opened: Open) -> None:
    done = CliRunner().invoke(main, ["report", str(many.path), "--output", str(tmp_path / "out")])
    assert done.output.strip() == str(tmp_path / "out" / "index.html")
    assert (tmp_path / "out" / "plotly.min.js").stat().st_size > 1_000_000
    assert (tmp_path / "out" / "index.html").stat().st_size < 3_000_000
    place = opened(tmp_path / "out" / "index.html").locator("[data-plot=progress]")
    place.scroll_into_view_if_needed()
    place.locator(".main-svg").first.wait_for()


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        [{"a": 32, "b": 16}, {"a": 64, "b": 8}],
        [[16], [16, 32]],
        [None, [64], [64, 64]],
        ["auto", [1, 2]],
        [0, False, 0.0, None, "None"],
        [{"$float": "inf"}, {"$tuple": [1, 2]}, "torch.nn:ReLU", {"$ref": "torch.nn.modules.activation:ReLU"}],
        ["[bold]", "</script><script>alert(1)</script>", "ü\n", ""],
    ],
    ids=str,
)
def test_every_space_has_a_report(tmp_path: Path, choices: list[Any]) -> None:
    results = simulated(tmp_path / "sweep", space={"odd": {"choice": choices}}, num_samples=20)
    drawn = {plot.name: plot.figure for plot in plots_of(results)}
    axis = drawn["parallel-coordinates"].data[0].dimensions[1]
    tried = {repr(trial.config["odd"]) for trial in results.trials}
    assert len(set(axis["values"])) == len(tried)  # what differs lies at different ticks
    assert "<script>alert" not in report(results)


def test_names_of_users_are_told_from_ours(tmp_path: Path) -> None:
    results = simulated(tmp_path / "sweep", space={name: {"choice": [1, 2]} for name in ("status", "seconds")})
    html = report(results)
    headings = re.findall(r"<th[^>]*><button>(.*?)</button></th>", html)
    assert headings == ["trial", "status", "score", "epochs", "seconds", "x", "status", "seconds", "why"]
    groups = re.search(r'<tr class="groups"><td colspan="5"></td><td colspan="3">configuration</td>', html)
    assert groups is not None


@pytest.mark.slow
def test_what_is_the_same_in_all_trials_is_no_column(many: Results, file: Path) -> None:
    html = file.read_text()
    assert "<button>data</button>" not in html
    assert re.search(r'id="constants".*?<th>data</th><td>letters</td>', html, re.DOTALL)


def slow_sweep(folder: Path) -> Results:
    """Two places; 30 s of start-up, 60 s of training, the last 30 of them by trial 1 alone."""
    begun = {"state": "running", "name": "slow", "id": "1", "spec": spec().plain(), "num_trials": 2}
    best = {"value": 0.5, "epoch": 27, "global_step": 27, "metrics": {"score": 0.5}}
    ended = {"status": "completed", "reason": None, "due": True, "checkpoints": {}, "best": best, **best}
    events: list[tuple[float, dict[str, Any]]] = [
        (0.4, {"event": "sweep", "host": "elsewhere", "pid": 1, **begun}),
        *((1, {"event": "trial", "trial": trial, "config": {"x": 0.5}, "seed": 1}) for trial in (0, 1)),
        *((30, {"event": "start", "trial": trial, "attempt": 0, "node": "n", "pid": 1}) for trial in (0, 1)),
        (60, {"event": "end", "trial": 0, **ended}),
        (90, {"event": "end", "trial": 1, **ended}),
    ]
    folder.mkdir()
    lines = [json.dumps({**event, "t": 1000.0 + seconds, "s": seconds}) for seconds, event in events]
    (folder / FILE_NAME).write_text("\n".join([*lines, ""]))
    return Results(folder)


def test_the_slowest_part_is_named_and_start_up_is_not_on_the_timeline(tmp_path: Path) -> None:
    results = slow_sweep(tmp_path / "slow")
    worked = timeline(results.events())
    assert [(a.begun, a.ended) for a in worked.attempts] == [(0.0, 30.0), (0.0, 60.0)]
    assert worked.parts() == {
        "training": 45.0,
        "starting up": 30.0,
        "places without a trial": 15.0,
        "deciding, while the trial waited": 0.0,
    }
    html = page(results, [], list(results.events()))
    assert "The slowest part was training: 45 s, 50% of 1 min 30 s." in html
    assert "For the last 30 s only trial 1 had a process." in html


def test_trials_that_a_process_trains_at_once_stand_together_on_the_timeline(tmp_path: Path) -> None:
    begun = {"state": "running", "name": "f", "id": "1", "spec": spec(fused=8).plain(), "num_trials": 5}
    end: dict[str, Any] = {"status": "completed", "reason": None, "due": True, "checkpoints": {}, "best": None}
    position = {"epoch": 1, "global_step": 1, "metrics": {}, "value": None}
    pids = {0: 7, 1: 8, 2: 7, 3: 8, 4: 7}
    starts = [(0, 0), (0, 1), (0, 2), (0, 3), (3, 4)]  # seconds, trials
    ends = [(2, 0), (3, 2), (5, 1), (6, 3), (9, 4)]
    events: list[tuple[float, dict[str, Any]]] = [
        (0, {"event": "sweep", "host": "elsewhere", "pid": 1, **begun}),
        *((0, {"event": "trial", "trial": n, "config": {"x": 0.5}, "seed": 1}) for n in pids),
        *((s, {"event": "start", "trial": n, "attempt": 0, "node": "n", "pid": pids[n]}) for s, n in starts),
        *((s, {"event": "end", "trial": n, **end, **position}) for s, n in ends),
    ]
    worked = timeline({**event, "t": 1000.0 + s, "s": s} for s, event in sorted(events, key=lambda e: e[0]))
    assert {a.trial: a.place for a in worked.attempts} == {
        0: "n #1, 1",
        1: "n #2, 1",
        2: "n #1, 2",
        3: "n #2, 2",
        4: "n #1, 1",
    }
    assert worked.places == ["n #1, 1", "n #1, 2", "n #2, 1", "n #2, 2"]
    assert worked.processes == {"n #1, 1": "n #1", "n #2, 1": "n #2"}
    assert worked.training_share == pytest.approx((2 + 3 + 5 + 6 + 6) / (4 * 9))


def test_a_sweep_with_a_trial_without_any_finite_value_has_a_report(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    for trial, value in enumerate((0.5, None)):
        written("trial", trial, config={"x": 0.5 + trial / 4}, seed=1)
        written("start", trial, attempt=0, node="n", pid=1)
        written.at("result", trial, epoch=1, step=4, value=value, due=True)
        written.at(
            "end", trial, epoch=1, step=4, value=value, status="stopped", reason="r", due=True, checkpoints={}
        )
    results = written.results()
    assert "trial 1" in report(results)


def test_a_sweep_that_runs_has_a_report(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("result", 0, epoch=1, step=1, due=True, checkpoints={})
    results = written.results()
    html = report(results)
    assert "<title>written: score" in html
    assert 'data-trial="0"' in html


def test_a_trial_of_a_sweep_that_was_lost_is_cut_off_wherever_it_is_shown(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("result", 0, epoch=1, step=1, due=True, checkpoints={})
    results = written.results()
    results.sweep.driver_gone()
    drawn = plots_of(results)
    traces = {trace.name for plot in drawn for trace in plot.figure.data}
    assert traces >= {"cut off", "cut off (1)"}
    assert not any("running" in str(name) for name in traces)
    html = page(results, drawn, list(results.events()))
    assert 'id="count-cut-off">1<' in html
    assert html.count('<span class="status cut-off">cut off</span>') == 2  # the count, and the leaderboard
    assert '<span class="status running">' not in html


def test_predictions_are_drawn_against_what_came(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    for epoch, value, predicted in ((1, 0.4, [[3, 0.55, 0.05], [9, 0.7, 0.02]]), (3, 0.5, []), (9, 0.8, [])):
        written.at("result", 0, epoch=epoch, step=epoch, value=value, due=True, checkpoints={})
        place = {"epoch": epoch, "global_step": epoch, "value": value}
        details = {"predicted": predicted}
        written("verdict", 0, decision="continue", reason="r", cutoff=None, compared=0, details=details, **place)
    drawn = {plot.name: plot for plot in plots_of(written.results())}["predictions"]
    points = drawn.figure.data[0]
    assert list(zip(points.x, points.y, points.error_x.array, strict=True)) == [(0.55, 0.5, 0.1), (0.7, 0.8, 0.04)]
    assert "1 of 2 came within them" in drawn.caption


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """30 trials under a search that predicts their curves."""
    scheduler = {"algorithm": "curves", "max_t": 27}
    return simulated(tmp_path_factory.mktemp("curves") / "sweep", scheduler=scheduler, num_samples=30)


def test_curves_are_drawn_with_what_was_predicted_of_them_when_they_were_judged(predicting: Results) -> None:
    first: dict[int, Any] = {}
    stopped: dict[int, Any] = {}
    for event in predicting.events():
        if event["event"] == "verdict" and event.get("details", {}).get("predicted"):
            first.setdefault(event["trial"], event)
            if event["decision"] == "stop":
                stopped[event["trial"]] = event
    data = {plot.name: plot for plot in plots_of(predicting)}["predicted-curves"].figure.data
    drawn = {trace.meta["trial"]: pair for pair in zip(data[::2], data[1::2], strict=True) for trace in pair}
    assert drawn.keys() == first.keys()
    for number, (came, predicted) in drawn.items():
        event, trial = stopped.get(number, first[number]), predicting.trials[number]
        assert came.x[-1] == trial.epoch
        assert (predicted.x[0], predicted.y[0]) == (event["epoch"], event["value"])
        bars = zip(predicted.x[1:], predicted.y[1:], predicted.error_y.array[1:], strict=True)
        assert list(bars) == [
            (time, value, 2 * deviation) for time, value, deviation in event["details"]["predicted"]
        ]
    visible = [trace.meta["trial"] for trace in data[::2] if trace.visible]
    assert len(stopped) > 5
    assert sum(number in stopped for number in visible) == 5
    assert {number for number in visible if number in stopped} == set(list(stopped)[-5:])


def test_a_sweep_whose_search_predicts_nothing_has_no_such_plot(many: Results) -> None:
    assert "predicted-curves" not in {plot.name for plot in plots_of(many)}


def test_the_filter_selects_whose_predictions_are_drawn(predicting: Results, tmp_path: Path, opened: Open) -> None:
    (tmp_path / "report.html").write_text(report(predicting))
    tab = opened(tmp_path / "report.html")
    tab.locator("[data-plot=predicted-curves]").scroll_into_view_if_needed()
    points = tab.locator("[data-plot=predicted-curves] .scatterlayer .trace")
    points.first.wait_for()
    shown = "figures['predicted-curves'].data.filter(trace => trace.visible).map(trace => trace.meta.trial)"
    by_itself = tab.evaluate(shown)
    hidden = next(
        trace["meta"]["trial"]
        for trace in tab.evaluate("figures['predicted-curves'].data")
        if not trace["visible"]
    )
    tab.locator("#filter").fill(f"trial = {hidden}")
    assert tab.evaluate(shown) == [hidden, hidden]
    assert points.count() == 2
    tab.locator("#filter").fill("")
    assert tab.evaluate(shown) == by_itself


def luminance(color: str) -> float:
    """Relative luminance, after WCAG 2."""
    parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_told_apart_from_white_and_from_black() -> None:
    for color in COLORS.values():
        light, dark = (1.05) / (luminance(color) + 0.05), (luminance(color) + 0.05) / 0.05
        assert light > 2, color
        assert dark > 3, color


@pytest.mark.slow
def test_a_notebook_has_the_same_figures(many: Results) -> None:
    figures = many.plot()
    assert list(figures) == [plot.name for plot in plots_of(many)]
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    assert many.plot("learning-curves").layout.title.text == "Learning curves"
    with pytest.raises(KeyError, match="did you mean 'learning-curves'"):
        many.plot("learning-curve")
