"""Bad input gets a message that says what to do, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import SPEC, here, spec_file
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results

BAD_OPTIONS = [
    ("space={}", "space: holds no parameter to search"),
    ("num_samples=none", "num_samples: must be a valid integer (got 'none')"),
    ("schedule=asha", "schedule: unknown option 'schedule'; did you mean 'scheduler'"),
]
BAD_NAMES = [
    ("recipe=tests.nowhere:train", "recipe: tests.nowhere cannot be imported: ModuleNotFoundError"),
    ("recipe=tests.recipes:two_arguments_short", "must take (config, trial) (got ()"),
    ("recipe=tests.recipes:trains", "recipe: tests.recipes has no 'trains'; did you mean 'trained'"),
    ("callbacks=[tests.recipes:curves]", "did you mean 'curve'"),
]


@pytest.mark.parametrize(
    ("command", "setting", "message"),
    [
        *(("run", *case) for case in [*BAD_OPTIONS, BAD_NAMES[1]]),  # names are looked up where trials run
        *((command, *case) for command in ("check", "try") for case in [*BAD_OPTIONS, *BAD_NAMES]),
    ],
)
def test_bad_input_gets_a_message_and_exit_code_2(
    tmp_path: Path, ray_here: None, command: str, setting: str, message: str
) -> None:
    if command == "try":  # whose --set sets parameters: the spec itself is at fault
        option, _, value = setting.partition("=")
        spec = SPEC.format(recipe="curve", num_samples=2).splitlines()
        lines = [line for line in spec if not line.startswith(f"{option}:")]
        (tmp_path / "bad.yaml").write_text("\n".join([*lines, f"{option}: {value}"]))
        done = here(command, str(tmp_path / "bad.yaml"))
    else:
        storage = ["--storage", str(tmp_path)] if command == "run" else []
        done = here(command, spec_file(tmp_path, "curve"), *storage, "--set", setting)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list(tmp_path.glob(f"*/{FILE_NAME}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.yaml"], "missing.yaml: there is no such file"),
        (["run", "LICENSE"], "LICENSE:"),
        (["status", "nowhere"], "no sweep 'nowhere'"),
        (["best", "nowhere"], "no sweep 'nowhere'"),
        (["resume", "nowhere"], "no sweep 'nowhere'"),
        (["status", "x" * 300], "journal.jsonl cannot be read: File name too long"),
        (["status", "nothing://x"], "the storage cannot be reached: nothing://x"),
        (["try", "sweeps/digits.yaml", "--set", "lrr=1"], "the space has no parameter 'lrr'; did you mean 'lr'"),
        *(
            (["launch", "sweeps/digits.yaml", "--name", name], f"(got {name!r})")
            for name in ("a b", "../a", "a/b")
        ),
        (
            ["launch", "sweeps/digits.yaml", "--storage", "runs"],
            "--storage must be a path from / or ~ on the cluster's nodes, or a URI (got 'runs')",
        ),
        (["run"], "Missing argument 'SPEC'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_arguments_that_make_no_sense_get_a_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    storage = ["--storage", str(tmp_path)] if arguments[0] in ("status", "best", "resume") else []
    done = here(*arguments, *storage)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_resources_that_no_node_has_and_a_metric_never_reported_exit_with_2(
    tmp_path: Path, ray_here: None
) -> None:
    storage = ("--storage", str(tmp_path))
    done = here("run", spec_file(tmp_path, "curve"), *storage, "--set", "resources_per_trial.cpu=999")
    assert done.exit_code == 2
    assert "no node can ever run a trial (got cpu 999;" in done.stderr
    done = here("run", spec_file(tmp_path, "reports_another_metric", num_samples=50), *storage)
    assert done.exit_code == 2
    assert "never reported 'score'; did you mean 'scores'" in done.stderr
    assert "Traceback" not in done.stderr
    found = Results(tmp_path / "reports_another_metric")
    assert found.sweep.state == "failed"
    assert len(found.trials) <= 6
