from __future__ import annotations

import fcntl
import math
import platform
import subprocess
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaytune.errors import JournalError
from xaytune.records.journal import (
    FILE_NAME,
    VERSION,
    Journal,
    KnownEvents,
    read_events,
)
from xaytune.records.provenance import commit_of
from xaytune.sweep import values


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


class SetClock:
    """A clock that a test sets: what people see, and what nobody can set, apart from each other."""

    def __init__(self) -> None:
        self.time, self.passed = 1000.0, 50.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.passed


def test_events_tell_how_long_the_writer_ran_whatever_its_clock_was_set_to(path: Path) -> None:
    clock = SetClock()
    journal = Journal(path, clock)
    clock.time, clock.passed = 9000.0, 52.5
    event = journal.write("fall_back", reason="slow")
    assert (event["t"], event["s"]) == (9000.0, 2.5)


def test_the_first_event_of_each_process_says_what_wrote_it(path: Path) -> None:
    for _ in range(2):
        journal = Journal(path)
        journal.write("fall_back", reason="one")
        journal.write("fall_back", reason="two")
        journal.close()
    first, second, third, fourth = read_events(path)
    for event in (first, third):
        assert event["journal"] == VERSION
        assert event["versions"]["python"] == platform.python_version()
        assert event["versions"]["ray"] == metadata.version("ray")
    for event in (second, fourth):
        assert "journal" not in event
        assert "versions" not in event


def test_a_journal_of_a_later_version_is_refused_with_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"event":"sweep","t":0,"journal":99,"versions":{"xaytune":"7.1"}}\n')
    with pytest.raises(JournalError, match=r"of version 99, written by xaytune 7\.1; .* upgrade it"):
        list(read_events(path))


def test_the_commit_is_that_of_the_repository_it_is_run_in(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    inner = tmp_path / "sweeps"
    inner.mkdir()
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert commit_of(inner) == head
    subprocess.run([*git, "pack-refs", "--all"], check=True)
    assert commit_of(inner) == head
    subprocess.run([*git, "worktree", "add", "-q", str(tmp_path / "other")], check=True)
    assert commit_of(tmp_path / "other") == head


def test_a_configuration_is_read_back_with_its_types(path: Path) -> None:
    config = {"clip": math.inf, "size": (8, 8), "widths": {1: 2}, "lr": 0.1, "net": {"act": Path}}
    Journal(path).write("trial", 0, config=config)
    [event] = read_events(path)
    assert values.same(values.read(event["config"]), config)
    assert event["config"]["lr"] == 0.1


def test_kinds_of_failures_of_earlier_versions_are_read_by_the_names_of_today(path: Path) -> None:
    path.parent.mkdir()
    kinds = ["node lost", "not begun", "lost", "node_lost"]
    path.write_text("".join(f'{{"event":"failure","t":0,"kind":"{kind}"}}\n' for kind in kinds))
    assert [event["kind"] for event in read_events(path)] == ["node_lost", "not_started", "lost", "node_lost"]


def test_an_event_is_known_to_who_writes_it_as_it_will_be_read(path: Path) -> None:
    journal = Journal(path)
    written = [
        journal.write("trial", 3, config={"size": (1, 2)}, seed=1),
        journal.write("end", 3, metrics={"loss": math.nan}, value=np.float32(0.5)),
    ]
    journal.close()
    assert written == list(read_events(path))
    assert written[1]["value"] == 0.5


def test_a_second_writer_is_refused(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(JournalError, match="the sweep is running, in another process"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_who_only_looks_at_a_sweep_keeps_none_from_running_it(path: Path) -> None:
    Journal(path).close()
    looking = path.open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)  # as one who asks whether it runs does, for a moment
    threading.Timer(0.05, looking.close).start()
    Journal(path).close()


def test_a_number_that_is_not_finite_is_null(path: Path) -> None:
    Journal(path).write("result", 0, metrics={"loss": math.nan, "best": [math.inf, 1.0]})
    assert "NaN" not in path.read_text()
    assert next(read_events(path))["metrics"] == {"loss": None, "best": [None, 1.0]}


def test_whatever_the_details_of_a_decision_hold_is_written(path: Path) -> None:
    details = {"array": np.array([1.0, np.nan]), "names": {"b", "a"}, "count": np.int64(3), "path": Path("/a")}
    event = Journal(path).write("verdict", 0, details=details)
    assert event["details"] == {
        "array": [1.0, None],
        "names": ["a", "b"],
        "count": 3,
        "path": "PosixPath('/a')",
    }


def test_a_half_written_last_line_is_dropped_and_cut_off_before_the_next_is_written(path: Path) -> None:
    for half in ("{", '{"event":"tri' + "x" * 100_000):
        journal = Journal(path)
        journal.write("trial", 0, config={})
        journal.close()
        with path.open("a") as file:
            file.write(half)
    assert len(list(read_events(path))) == 2
    Journal(path).write("trial", 1, config={})
    assert [event["trial"] for event in read_events(path)] == [0, 0, 1]


@pytest.mark.parametrize("damaged", ["not json", "[]", '{"event":"trial","trial":0}', '{"t":1.0}'])
def test_damage_before_the_last_line_is_named_with_its_line(path: Path, damaged: str) -> None:
    path.parent.mkdir()
    path.write_text(f'{{"event":"trial","t":1.0,"trial":0}}\n{damaged}\n{{"event":"trial","t":2.0,"trial":1}}\n')
    with pytest.raises(JournalError, match=r"journal\.jsonl:2: not an event"):
        list(read_events(path))


def test_a_journal_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_events(path))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.text(), anything, max_size=3), max_size=4), st.floats(0, 1))
def test_any_prefix_of_a_journals_bytes_loads_as_a_prefix_of_its_events(
    tmp_path_factory: pytest.TempPathFactory, configs: list[dict[str, object]], cut: float
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    written = [journal.write("trial", n, config=c) for n, c in enumerate(configs)]
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    read = list(read_events(path))
    assert read == written[: len(read)]


def test_known_events_are_parsed_once_until_they_are_forgotten_and_new_ones_are_added(
    tmp_path: Path,
) -> None:
    journal, known = Journal(tmp_path / FILE_NAME), KnownEvents(tmp_path / FILE_NAME)
    journal.write("note", text="first")
    (first,) = known.all()
    journal.write("note", text="second")
    again, second = known.all()
    assert again is first  # it was not parsed again
    assert second["text"] == "second"
    known.forget()
    assert [event["text"] for event in known.all()] == ["first", "second"]
    journal.close()
