"""The report: what it says is what the journal and the histories say, and it opens without a network."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, ConsoleMessage, Page

from xaytune.cli.main import main
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results
from xaytune.report.figures import plots
from xaytune.report.page import page

Event = dict[str, Any]


@pytest.fixture(scope="module")
def html(swept: Results) -> str:
    events = list(swept.events())
    return page(swept, list(plots(swept, events)), events)


@pytest.fixture(scope="module")
def journal(swept: Results) -> dict[int, dict[str, list[Event]]]:
    """The lines of the journal by trial and kind, read without the code that is tested."""
    found: dict[int, dict[str, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for line in (swept.path / FILE_NAME).read_text().splitlines():
        event = json.loads(line)
        if "trial" in event:
            found[event["trial"]][event["event"]].append(event)
    return found


def embedded(html: str, name: str) -> Any:
    """The data of a script of the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


class _Leaderboard(HTMLParser):
    """Reads the rows of the leaderboard: what each cell is sorted by."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "tr" and "data-trial" in values:
            self.rows.append([])
        elif tag == "td" and "data-sort" in values:
            self.rows[-1].append(values["data-sort"] or "")


def test_the_leaderboard_says_what_the_journal_says(html: str, journal: dict[int, dict[str, list[Event]]]) -> None:
    parser = _Leaderboard()
    parser.feed(html)
    assert len(parser.rows) == len(journal) == 16
    values = []
    for number, status, value, epochs, steps, seconds, x, lr, kind, momentum, reason in parser.rows:
        (end,), (trial,) = (journal[int(number)][kind] for kind in ("end", "trial"))
        assert (status, int(epochs), int(steps)) == (end["status"], end["epoch"], end["global_step"])
        assert value == ("" if end["value"] is None else repr(end["value"]))
        events = itertools.chain(*list(journal[int(number)].values()))  # as the journal's format says
        trained = (event["seconds"] for event in events if "seconds" in event)
        assert float(seconds) == pytest.approx(max(trained), abs=1e-6)
        config = trial["config"]
        assert (float(x), float(lr), kind) == (config["x"], config["lr"], config["kind"])
        assert momentum == str(config.get("momentum", ""))
        assert reason == (end["reason"] or "")
        values.append(end["value"])
    finite = [value for value in values if value is not None]
    assert values[: len(finite)] == sorted(finite, reverse=True)


def test_the_learning_curves_are_the_histories_and_end_where_trials_ended(html: str, swept: Results) -> None:
    drawn: dict[int, list[tuple[int, float]]] = defaultdict(list)
    *lines, crosses = embedded(html, "figures")["learning-curves"]["data"]
    for trace in lines:
        for time, value, number in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            if time is not None:
                drawn[number].append((time, value))
    assert drawn
    for trial in swept.trials:
        history = swept.history(trial.number)
        expected: dict[int, float] = {}
        if "metrics.score" in history:
            known = history.dropna(subset="metrics.score")
            expected = dict(zip(known["epoch"] + 1, known["metrics.score"], strict=True))
        assert drawn[trial.number] == list(expected.items())
    stopped = [trial for trial in swept.trials if trial.status == "stopped"]
    assert len(crosses["x"]) == len(stopped) > 0
    assert sorted(crosses["x"]) == sorted(trial.epoch for trial in stopped)


def test_the_rungs_are_the_verdicts_of_the_journal(html: str, journal: dict[int, dict[str, list[Event]]]) -> None:
    went_on, cut = embedded(html, "figures")["rungs"]["data"]
    stops = {number: events["end"][0]["epoch"] for number, events in journal.items() if events["stop"]}
    stopped = {
        number: epoch for number, epoch in stops.items() if journal[number]["end"][0]["status"] == "stopped"
    }
    judged = defaultdict(set)
    for number, events in journal.items():
        for result in events["result"]:
            judged[result["epoch"]].add(number)
    for rung, on, off in zip(cut["x"], went_on["y"], cut["y"], strict=True):
        at = {number for number, epoch in stopped.items() if epoch == int(rung)}
        assert (on, off) == (len(judged[int(rung)] - at), len(at))
    assert sum(cut["y"]) == len(stopped) > 0


def test_the_timeline_is_when_trials_began_and_ended(
    html: str, swept: Results, journal: dict[int, dict[str, list[Event]]]
) -> None:
    drawn = [
        bar
        for trace in embedded(html, "figures")["timeline"]["data"]
        for bar in zip(trace["y"], trace["base"], trace["x"], strict=True)
    ]
    begun = min(start["t"] for events in journal.values() for start in events["start"])
    expected = [
        (start["t"] - begun, end["t"] - start["t"])
        for events in journal.values()
        for start, end in zip(events["start"], events["end"], strict=True)
    ]
    bars = sorted((base, length, place) for place, base, length in drawn)
    for bar, times in zip(bars, sorted(expected), strict=True):
        assert bar[:2] == pytest.approx(times, abs=0.05)
    for place in {bar[2] for bar in bars}:  # no two trials had one place at the same time
        there = [bar for bar in bars if bar[2] == place]
        assert all(a[0] + a[1] <= b[0] + 0.001 for a, b in itertools.pairwise(there))


def test_every_trial_has_its_story_with_why_it_was_stopped(
    html: str, journal: dict[int, dict[str, list[Event]]]
) -> None:
    stories = embedded(html, "stories")
    for number, events in journal.items():
        story = stories[str(number)]
        (end,) = events["end"]
        assert story["status"] == end["status"]
        assert (end["reason"] or "completed") in story["why"]
        texts = [text for _, text in story["moments"]]
        for verdict in events["verdict"]:
            assert any(verdict["reason"] in text for text in texts)
        assert (story["error"] is not None) == (end["status"] == "failed")


@pytest.mark.parametrize("width", [1400, 400])
def test_the_report_opens_without_a_network_and_its_leaderboard_can_be_clicked_through(
    html: str, swept: Results, chromium: Browser, tmp_path: Path, width: int
) -> None:
    (tmp_path / "report.html").write_text(html)
    tab = chromium.new_page(viewport={"width": width, "height": 900})
    tab.context.set_offline(True)
    said: list[ConsoleMessage] = []
    errors: list[object] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message))
    tab.on("pageerror", lambda error: errors.append(error))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "report.html").as_uri())
    for section in tab.locator("section").all():
        section.scroll_into_view_if_needed()
    for place in tab.locator("[data-plot]").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width

    for column, key in ((0, "trial"), (3, "epochs"), (2, "score")):
        heading = tab.locator("#leaderboard th").nth(column)
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        rising = [float(value) for value in _column(tab, column) if value]
        assert rising == sorted(rising), key
        heading.locator("button").click()
        assert [float(value) for value in _column(tab, column) if value] == sorted(rising, reverse=True)

    stopped = next(trial for trial in swept.trials if trial.status == "stopped")
    tab.locator(f'#leaderboard button.open[data-trial="{stopped.number}"]').click()
    assert str(stopped.reason) in tab.locator("#story .why").inner_text()
    tab.locator("#story form button").click()
    assert not tab.locator("#story").is_visible()
    tab.close()
    assert [message.text for message in said if message.type == "error"] == []
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def _column(tab: Page, index: int) -> list[str]:
    cells = tab.locator(f"#leaderboard tbody td:nth-child({index + 1})").all()
    return [cell.get_attribute("data-sort") or "" for cell in cells]


def test_the_command_writes_the_report_and_its_plots_as_pictures(
    swept: Results, chromium: Browser, in_folder: Path
) -> None:
    arguments = ["report", str(swept.path), "--output", str(in_folder / "out" / "sweep.html"), "--png"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    written, *pictures = done.stdout.split()
    assert Path(written).read_text().startswith("<!doctype html>")
    assert {Path(picture).stem for picture in pictures} >= {"learning-curves", "timeline", "parallel-coordinates"}
    for picture in pictures:
        header = Path(picture).read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert struct.unpack(">II", header[16:24])[0] == 2200
