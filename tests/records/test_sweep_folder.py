"""Folders of sweeps: what is in them is lost to no other sweep, on this machine or another."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.cli.commands import here
from tests.report.journals import Written, simulated
from xaytune.errors import JournalError, SpecError
from xaytune.ray_tune.running import resume_sweep
from xaytune.ray_tune.session import RaySession
from xaytune.records.driver_process import DriverProcess
from xaytune.records.journal import FILE_NAME, Journal, read_events
from xaytune.records.naming import check_name, name_after, new_sweep_folder
from xaytune.records.remote import RemoteFolder
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder, child_of, find_sweep, sweeps_in

SPEC = "recipe: a:b\nmetric: score\nmode: max\nspace: {x: {uniform: [0, 1]}}\nnum_samples: 3\n"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"file://{tmp_path}/bucket"


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.py").write_text("...")
    (tmp_path / "spec.yaml").write_text(SPEC + "scheduler: pbt\n")
    curves = "tests.simulation.surrogates:power_law"
    names = ["--storage", str(tmp_path), "--name", "mine"]
    done = here("simulate", str(tmp_path / "spec.yaml"), "--curves", curves, *names)
    assert done.exit_code == 2
    assert f"{tmp_path / 'mine'} is not empty: choose another name" in done.stderr
    assert (tmp_path / "mine" / "train.py").read_text() == "..."


def test_a_name_that_is_no_text_is_refused_and_a_lambda_gives_its_sweep_one_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"name: must be letters, .* \(got 3\)"):
        check_name(3)  # type: ignore[arg-type]
    names = [name_after(f"module:{function}") for function in ("train", "make.<locals>.train", "<lambda>")]
    assert names == ["train", "make.train", "sweep"]


def test_a_sweep_that_is_named_after_its_spec_has_a_name_that_can_be_given_too(tmp_path: Path) -> None:
    for default, name in (("my sweep (2)", "my-sweep-2"), ("-", "sweep")):
        check_name(name)
        assert new_sweep_folder(str(tmp_path), None, default).local == tmp_path / name


def test_a_name_whose_sweep_never_began_can_be_used_again(tmp_path: Path) -> None:
    Journal(tmp_path / "once" / FILE_NAME).close()
    assert new_sweep_folder(str(tmp_path), "once", "").local == tmp_path / "once"
    simulated(tmp_path / "once")
    with pytest.raises(SpecError, match="once holds a sweep already"):
        new_sweep_folder(str(tmp_path), "once", "")


@pytest.mark.parametrize("remote", [False, True])
def test_starts_with_a_default_name_have_a_folder_each_on_this_machine_and_on_others(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    names = []
    for machine in ("one", "one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        names.append(new_sweep_folder(storage if remote else str(tmp_path), None, "train").name)
    assert names == ["train", "train-2", "train-3"]


@pytest.mark.parametrize("cache", ["", "relative"])
def test_a_cache_that_is_no_absolute_path_is_not_used(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert child_of("memory://bucket", "s").local.is_relative_to(Path.home() / ".cache" / "xaytune")


def test_a_working_copy_of_a_sweep_that_its_storage_holds_no_more_is_named(storage: str, tmp_path: Path) -> None:
    local = child_of(storage, "s").local
    simulated(local)
    named = f"{re.escape(str(local))}, the working copy of .*/bucket/s on this machine, holds a sweep already"
    with pytest.raises(SpecError, match=named):
        new_sweep_folder(storage, "s", "")


def test_a_bucket_that_is_not_there_is_told_before_a_sweep_begins(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xaytune.records.remote._PAUSES_S", (0.0,))  # between its tries: seconds
    missing = bucket.replace("bucket?", "nowhere?").replace("&allow_bucket_creation=true", "")
    with pytest.raises(SpecError, match=r"cannot be used: .*nowhere"):
        new_sweep_folder(missing, "s", "")


def test_a_sweep_in_a_remote_storage_has_its_own_name(storage: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    curves = "tests.simulation.surrogates:power_law"
    done = here(
        "simulate", str(tmp_path / "spec.yaml"), "--curves", curves, "--storage", storage, "--name", "late"
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("late: completed")
    assert Results(f"{storage}/late").sweep.name == "late"
    assert (tmp_path / "bucket" / "late" / FILE_NAME).exists()
    assert here("list", "--storage", storage).stdout.splitlines()[1].startswith("late ")


def test_a_sweep_that_went_on_elsewhere_is_shown_as_it_went_on(storage: str, tmp_path: Path) -> None:
    elsewhere = simulated(tmp_path / "elsewhere", num_samples=2)
    simulated(tmp_path / "here", num_samples=9)
    longer = (tmp_path / "here" / FILE_NAME).read_bytes()
    sweep_folder = child_of(storage, "s")
    sweep_folder.local.mkdir(parents=True)
    (sweep_folder.local / FILE_NAME).write_bytes(longer)
    (tmp_path / "bucket" / "s").mkdir(parents=True)
    there = tmp_path / "bucket" / "s" / FILE_NAME
    there.write_bytes(longer[: len(longer) // 2])  # what was copied until this machine was cut off
    assert len(Results(f"{storage}/s").trials) == 9
    there.write_bytes((tmp_path / "elsewhere" / FILE_NAME).read_bytes())
    assert len(Results(f"{storage}/s").trials) == 2 == len(elsewhere.trials)


def test_a_journal_that_is_written_here_is_not_replaced(storage: str, tmp_path: Path) -> None:
    sweep_folder = child_of(storage, "s")
    simulated(tmp_path / "other")
    (tmp_path / "bucket" / "s").mkdir(parents=True)
    (tmp_path / "bucket" / "s" / FILE_NAME).write_bytes((tmp_path / "other" / FILE_NAME).read_bytes())
    journal = Journal(sweep_folder.local / FILE_NAME)
    sweep_folder.fetch_journal()
    journal.write("note", text="mine")
    journal.close()
    assert b"mine" in (sweep_folder.local / FILE_NAME).read_bytes()


def test_a_sweep_that_another_machine_runs_is_known_by_its_journal(storage: str, tmp_path: Path) -> None:
    sweep_folder = child_of(storage, "s")
    remote = sweep_folder.remote
    assert remote is not None
    written = Written(tmp_path / "there")
    remote.put(FILE_NAME, (tmp_path / "there" / FILE_NAME).read_bytes())
    assert Results(f"{storage}/s").sweep.may_run_on == "elsewhere"
    assert not sweep_folder.grows(within_s=1.0)
    written("note", text="more")
    longer = threading.Timer(0.5, remote.put, (FILE_NAME, (tmp_path / "there" / FILE_NAME).read_bytes()))
    longer.start()
    assert sweep_folder.grows(within_s=60.0)


def test_a_sweep_that_another_process_here_runs_is_not_resumed_from_a_working_copy_of_ones_own(
    storage: str, tmp_path: Path
) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        written = Written(tmp_path / "bucket" / "s")
        begun: dict[str, Any] = next(read_events(tmp_path / "bucket" / "s" / FILE_NAME))
        told = {name: begun[name] for name in ("state", "name", "id", "spec", "num_trials")}
        written("sweep", **told, host=socket.gethostname(), pid=other.pid)
        with pytest.raises(JournalError, match="s: the sweep is running, in another process"):
            resume_sweep(child_of(storage, "s"), RaySession())
        other.kill()
    assert Results(f"{storage}/s").sweep.state == "lost"


def test_a_file_of_a_remote_storage_is_read_whole_while_it_is_written_anew(storage: str, tmp_path: Path) -> None:
    remote, sizes = RemoteFolder(storage), (5_000_000, 7_000_000)
    remote.put("journal", b"x" * sizes[0])
    seen: set[int] = set()
    written = threading.Event()

    def write() -> None:
        for at in range(20):
            remote.put("journal", b"x" * sizes[at % 2])
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not written.is_set():
        seen.add(len(remote.get("journal") or b""))
    writer.join()
    assert seen <= set(sizes)
    assert remote.names("") == ["journal"]


class UnavailableError(Exception):
    """What a storage raises that refuses now and then: no OSError."""


class Busy(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A storage that refuses once to delete each file, or list each folder; and always to tell of `closed`."""

    protocol = "busy"
    asked: ClassVar[set[str]] = set()

    def refuse_once(self, request: str) -> None:
        if request not in self.asked:
            self.asked.add(request)
            raise UnavailableError("503")

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        self.refuse_once(f"rm {path}")
        super().rm(path, recursive, maxdepth)

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.refuse_once(f"find {path}")
        return super().find(path, *arguments, **options)

    def info(self, path: str, **options: Any) -> Any:
        if "closed" in path:
            raise UnavailableError("503")
        return super().info(path, **options)


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.register_implementation("busy", Busy, clobber=True)
    return f"busy://{tmp_path.name}"


def test_what_a_sweep_lists_and_deletes_is_asked_for_again_where_a_storage_refuses_once(busy: str) -> None:
    sweep = child_of(busy, "s")
    assert sweep.remote is not None
    for file in ("one.pt", "folder/a", "folder/b"):
        sweep.remote.put(file, b"1")
    assert sweep.remote.names("folder") == ["a", "b"]
    for name in ("one.pt", "folder"):
        sweep.delete(name)
    assert sweep.remote.names("") == []


def test_a_sweep_whose_storage_cannot_be_reached_has_no_results_to_read(busy: str) -> None:
    with pytest.raises(JournalError, match=r"the storage cannot be reached: .*503"):
        Results(child_of(busy, "closed"))


def test_only_folders_with_a_journal_are_sweeps(storage: str, tmp_path: Path) -> None:
    (tmp_path / "bucket" / "notes").mkdir(parents=True)
    simulated(tmp_path / "bucket" / "a")
    assert sweeps_in(storage) == ["a"] == sweeps_in(str(tmp_path / "bucket"))


@pytest.mark.parametrize(
    "storage", ["nothing://x", "http://127.0.0.1:1/x", "~nobody-of-this-name/x", "s3://", "hdfs://127.0.0.1:1/x"]
)
@pytest.mark.parametrize("command", [["list"], ["status", "s"]])
def test_a_storage_that_cannot_be_reached_gets_a_message_of_a_line(command: list[str], storage: str) -> None:
    done = here(*command, "--storage", storage)
    assert done.exit_code == 2
    assert storage in done.stderr
    assert done.stderr.count("\n") == 1
    assert ("names no bucket" in done.stderr) == (storage == "s3://")


def test_a_journal_that_is_damaged_is_told_beside_the_list_as_json(tmp_path: Path) -> None:
    simulated(tmp_path / "sound")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / FILE_NAME).write_text('{"t": 1, "eve\n{"t": 2}\n')
    done = here("list", "--storage", str(tmp_path), "--json")
    assert [sweep["sweep"] for sweep in json.loads(done.stdout)] == ["sound"]
    assert done.stderr.startswith("cut: ")


def test_a_hint_to_resume_has_the_options_of_its_storage_and_no_credentials(tmp_path: Path) -> None:
    uri = "memory://KEY:SECRET@bucket/sweeps?endpoint_override=localhost%3A9000&secret_key=SECRET"
    address = child_of(uri, "s").address
    assert address == "memory://bucket/sweeps/s?endpoint_override=localhost%3A9000"
    results = simulated(tmp_path / "s")
    assert results.sweep.address == str(tmp_path / "s")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://KEY:SEC/RET@bucket/x", "s3://bucket/x"),
        ("s3://KEY:SEC@RET@bucket/x", "s3://bucket/x"),
        ("nothing://KEY:SECRET@bucket/x?token=SEC/RET", "nothing://bucket/x"),
        ("http://KEY:SEC/RET@127.0.0.1:1/x", "http://127.0.0.1:1/x"),
    ],
)
def test_no_message_on_a_storage_shows_its_credentials(uri: str, shown: str) -> None:
    done = here("status", "s", "--storage", uri)
    assert done.exit_code == 2
    assert shown in done.stderr
    assert not re.search("KEY|SEC|RET", done.stderr)


def test_another_process_with_the_id_of_one_that_ran_a_sweep_does_not_run_it() -> None:
    here, pid = socket.gethostname(), os.getpid()
    began = Path(f"/proc/{pid}").stat().st_mtime
    assert DriverProcess(here, pid, noted=began + 1).alive
    assert not DriverProcess(here, pid, noted=began - 3600).alive  # before this process began
    assert DriverProcess("elsewhere", pid, noted=began - 3600).alive


def test_a_sweep_that_is_found_by_a_relative_path_has_the_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated(tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    assert SweepFolder(Path(".")).name == "s"
    assert find_sweep(".", "runs").name == "s"
    (tmp_path / "s" / "history").mkdir(exist_ok=True)
    monkeypatch.chdir("history")
    assert find_sweep("..", "runs").name == "s"
    with pytest.raises(JournalError, match="no sweep 'other'"):
        find_sweep("other", "runs")
