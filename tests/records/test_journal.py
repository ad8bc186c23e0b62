from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaytune.records.journal import Journal, JournalError, read_events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep" / "journal.jsonl"


def test_events_come_back_in_order_with_their_time_and_trial(path: Path) -> None:
    journal = Journal(path)
    written = [journal.write("trial", 3, config={"lr": 0.1}), journal.write("sweep", state="completed")]
    journal.close()
    assert list(read_events(path)) == written
    assert written[0]["event"] == "trial"
    assert written[0]["trial"] == 3
    assert isinstance(written[0]["t"], float)
    assert "trial" not in written[1]


def test_a_number_that_is_not_finite_is_null(path: Path) -> None:
    Journal(path).write("result", 0, metrics={"loss": math.nan, "best": [math.inf, 1.0]})
    assert "NaN" not in path.read_text()
    assert next(read_events(path))["metrics"] == {"loss": None, "best": [None, 1.0]}


def test_a_half_written_last_line_is_dropped_and_cut_off_before_the_next_is_written(path: Path) -> None:
    Journal(path).write("trial", 0, config={})
    with path.open("a") as file:
        file.write('{"event":"tri')
    assert len(list(read_events(path))) == 1
    Journal(path).write("trial", 1, config={})
    assert [event["trial"] for event in read_events(path)] == [0, 1]


def test_damage_before_the_last_line_is_named_with_its_line(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"event":"trial","trial":0}\nnot json\n{"event":"trial","trial":1}\n')
    with pytest.raises(JournalError, match=r"journal\.jsonl:2: not an event"):
        list(read_events(path))


def test_a_journal_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_events(path))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=4), st.floats(0, 1))
def test_any_prefix_of_a_journals_bytes_loads_as_a_prefix_of_its_events(
    tmp_path_factory: pytest.TempPathFactory, configs: list[dict[str, object]], cut: float
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    written = [json.loads(json.dumps(journal.write("trial", n, config=c))) for n, c in enumerate(configs)]
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    read = list(read_events(path))
    assert read == written[: len(read)]
