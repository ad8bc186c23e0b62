"""Programs of their own: the contract of training, and what they are given and told."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor

from tests.trial.reported_loop import Loop
from xaytune.errors import SpecError
from xaytune.messages import PAUSE, Assignment, DecisionDue, Ended, Message, StopRequest, Task
from xaytune.records.history import Row
from xaytune.sweep.command import Command, config_text
from xaytune.sweep.objective import Objective
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis
from xaytune.testing.training import JudgedRun, TrainingContract
from xaytune.trainer.callbacks import Pause
from xaytune.trainer.checkpoint_files import list_checkpoints, step_of
from xaytune.trial.program.command_process import Program
from xaytune.trial.program.command_run import CommandRun, follow
from xaytune.trial.program.lines import checkpoint_of
from xaytune.trial.run.failures import ProgramLostError

HERE = Path(__file__).parent


def counted(run: JudgedRun, by: str) -> Tensor:
    """A shell script that writes lines of JSON."""
    assert run.checkpoint_dir is not None
    folder = run.checkpoint_dir / "own"
    folder.mkdir(parents=True, exist_ok=True)
    run.attach(lambda: folder)
    checkpoint = checkpoint_of(run.checkpoint_dir)
    program = Program(
        ["sh", str(HERE / "counting.sh"), by, "6", str(folder)],
        {"XAYTUNE_CHECKPOINT": str(checkpoint) if checkpoint is not None else ""},
    )
    nobody = Loop("epoch", (), folder)  # asks for a stop
    try:
        follow(program, run, Objective("score", "max"), nobody.reporter, str)
    finally:
        program.close()
    return torch.tensor(float((folder / "trained").read_text().split()[-1]))


def by_epochs(run: JudgedRun) -> Tensor:
    return counted(run, "epoch")


def by_steps(run: JudgedRun) -> Tensor:
    return counted(run, "global_step")


@pytest.mark.slow
class LinesContract(TrainingContract):
    exact_stop = False

    def _train(self, run: JudgedRun, seed: int = 0) -> tuple[Tensor, int]:
        weights, _ = super()._train(run, seed)
        assert run.checkpoint_dir is not None
        trained = run.checkpoint_dir / "own" / "trained"
        return weights, len(trained.read_text().split()) if trained.exists() else 0


class TestLinesByEpochs(LinesContract):
    recipe = "tests.trial.test_commands:by_epochs"
    judged_by = ("epoch",)


class TestLinesBySteps(LinesContract):
    recipe = "tests.trial.test_commands:by_steps"
    judged_by = ("global_step",)


class Judge:
    """A driver that decides as a judged run does."""

    busy = False

    def __init__(self, run: JudgedRun) -> None:
        self._run = run

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Nobody listens."""

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        run = self._run
        time = message.epoch if run._by == "epoch" else message.global_step
        run.judged.append(time)
        if time == run._pause_at:
            return PAUSE
        return StopRequest("weak") if time == run._stop_at else None

    def stop_request(self) -> None:
        """Nobody asks."""


def command_run(run: JudgedRun, text: str, config: dict[str, Any], **options: Any) -> CommandRun:
    """The program of a judged run."""
    assert run.checkpoint_dir is not None
    sweep = run.checkpoint_dir.with_name(f"{run.checkpoint_dir.name}-sweep")
    own = sweep / "checkpoints" / "00000"
    own.parent.mkdir(parents=True, exist_ok=True)
    run.checkpoint_dir.mkdir(exist_ok=True)
    if not own.exists():
        own.symlink_to(run.checkpoint_dir.absolute())
    by_step = run._by == "global_step"
    points = DecisionPoints(
        axis=TimeAxis("global_step" if by_step else "epoch"),
        milestones=tuple(sorted(run._times)),
        pausing=run._pause_at is not None,
    )
    task = Task(
        sweep="s",
        sweep_id="1",
        sweep_dir=str(sweep),
        remote=None,
        recipe=Command.parse(text),
        objective=Objective("score", "max"),
        seed=0,
        points=points,
        **options,
    )
    assignment = Assignment(
        trial=0,
        seed=7,
        config=config,
        checkpoints=tuple(map(step_of, list_checkpoints(run.checkpoint_dir))),
        last_judged=max(run.judged, default=0),
        stop=StopRequest("at once") if run._stop_at == 0 else None,
    )
    return CommandRun(task, assignment, Judge(run))


@pytest.mark.slow
class TestCurrentTrial(TrainingContract):
    """A Python program that says `xaytune.current_trial()`."""

    recipe = "a program"
    judged_by: ClassVar[tuple[str, ...]] = ("global_step",)
    kills = 1

    def _train(self, run: JudgedRun, seed: int = 0, fails_with: str = "", kill_at: int = -1) -> tuple[Tensor, int]:
        assert run.checkpoint_dir is not None
        out = run.checkpoint_dir.with_name(f"{run.checkpoint_dir.name}-{seed}-out")
        out.mkdir(parents=True)
        text = f"python {HERE / 'program_of_a_trial.py'} --seed {seed} --out {{out}}"
        config = {"out": str(out), "fails_with": fails_with, "kill_at": kill_at, "large": "x" * 1_000_000}
        program = command_run(run, text, config, callbacks=("tests.trial.notes:note",))
        ended = self._ended(program, out, run)
        if ended.status == "paused":
            raise Pause
        if ended.failure is not None:
            assert ended.failure.error.startswith(fails_with), ended.failure
            raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[fails_with]
        return torch.load(out / "weights.pt"), int((out / "taken").read_text())

    def _ended(self, program: CommandRun, out: Path, run: JudgedRun) -> Ended:
        try:
            return program.run()
        finally:
            for line in (out / "events").read_text().splitlines():
                event, step = line.split()
                run.events.append(event)  # type: ignore[arg-type]
                if event == "step_end":
                    run.history.append(int(step))

    @pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
    def test_train_end_is_fired_once_after_error_where_a_run_raises(
        self, raised: type[BaseException], tmp_path: Path
    ) -> None:
        run = JudgedRun(tmp_path / "run")
        with pytest.raises(raised):
            self._train(run, fails_with=raised.__name__)
        assert run.events[-2:] == ["error", "train_end"]
        assert run.events.count("train_end") == 1

    def _killed(self, folder: Path, step: int) -> None:
        with pytest.raises(ProgramLostError) as lost:
            self._train(JudgedRun(folder), kill_at=step)
        assert lost.value.signal == signal.SIGKILL


def run_alone(tmp_path: Path, text: str, config: dict[str, Any] | None = None) -> Ended:
    return command_run(JudgedRun(tmp_path / "run"), text, config or {}).run()


@pytest.mark.slow
def test_what_a_program_says_that_cannot_be_right_fails_its_trial_in_a_line(tmp_path: Path) -> None:
    told_of = {
        "epoch 1": "XAYTUNE_FD takes lines of JSON such as",
        '{"epoch": 0, "score": 1}': "'epoch' must be a number of epochs that are finished, from 1",
        '{"epoch": Infinity, "score": 1}': "'epoch' must be a number of epochs that are finished, from 1",
        f'{{"global_step": {10**400}}}': "'global_step' must be a number of steps that are done, from 1",
        '{"epoch": 1, "score": "high"}': "the metric 'score' must be a number",
        '{"checkpoint": "nowhere"}': "a checkpoint must be the path of a file or a folder",
        '{"checkpoint": "/"}': "a checkpoint cannot be a folder that holds the sweep's own",
    }
    for number, (said, told) in enumerate(told_of.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = run_alone(folder, "sh -c 'echo \"$0\" >&$XAYTUNE_FD; sleep 60' {said}", {"said": said})
        assert ended.failure is not None
        assert told in ended.failure.error


def test_ctrl_c_ends_what_runs_a_program(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path / "run")
    config = {"out": str(tmp_path), "fails_with": "KeyboardInterrupt", "kill_at": -1, "said": '{"epoch": 2}'}
    text = "sh -c 'echo \"$0\" >&$XAYTUNE_FD' {said}"
    with pytest.raises(KeyboardInterrupt):
        command_run(run, text, config, callbacks=("tests.trial.notes:note",)).run()


def test_a_program_may_report_every_third_epoch(tmp_path: Path) -> None:
    lines = "".join(f'{{{{"epoch": {epoch}, "score": {epoch}}}}}\n' for epoch in (3, 6))
    ended = run_alone(tmp_path, f"sh -c 'printf \"$0\" >&$XAYTUNE_FD' '{lines}'")
    assert (ended.status, ended.epoch, ended.global_step) == ("completed", 6, 6)


def test_the_last_line_of_a_program_needs_no_end_unless_it_was_killed_within_it(tmp_path: Path) -> None:
    text = "sh -c 'printf \"$0\" >&$XAYTUNE_FD; {then}' {said}"
    whole = {"said": '{"epoch": 1, "score": 1}', "then": "exit 0"}
    assert run_alone(tmp_path, text, whole).epoch == 1
    for number, words in [(9, "killed by SIGKILL"), (37, "killed by signal 37")]:
        with pytest.raises(ProgramLostError, match=words):
            run_alone(tmp_path, text, {"said": '{"epoch": 1, "sc', "then": f"kill -{number} $$"})


def test_a_program_that_cannot_be_started_fails_its_trial(tmp_path: Path) -> None:
    ended = run_alone(tmp_path, "/nowhere/program")
    assert ended.reason == "/nowhere/program cannot be started: No such file or directory"


def test_a_program_finds_its_configuration_whole(tmp_path: Path) -> None:
    config = {"lr": 1e-05, "betas": (0.9, 0.99), "name": "a b'c", "data": {"path": "x"}, "amp": True}
    places = {"folder": "/f", "config_file": "/f/c.json"}

    def words(text: str) -> list[str]:
        return Command.parse(text).words_for(config, places)

    assert words("p --lr {lr} --name={name} {{x}} {folder}/{data.path}") == [
        *("p", "--lr", "1e-05", "--name=a b'c", "{x}", "/f/x")
    ]
    assert words("p {args}") == [
        *("p", "--lr", "1e-05", "--betas", "[0.9, 0.99]", "--name", "a b'c", "--data.path", "x", "--amp", "true")
    ]
    assert words("p {overrides}")[1:] == [
        *("lr=1e-05", "betas=[0.9,0.99]", "name='a b\\'c'", "data.path=x", "amp=true")
    ]
    assert '"lr": 1.0e-05' in config_text(config)


@pytest.mark.parametrize("value", [1.5e-05, -2.25e-300, 1e-05, 1e22, 0.1, 12, math.inf, "1.5e-05"])
def test_json_and_yaml_read_a_value_of_the_file_as_it_is(value: Any) -> None:
    written = config_text({"value": [value, {"a": value}]})
    assert json.loads(written) == YAML(typ="safe").load(written) == {"value": [value, {"a": value}]}


def test_infinities_and_backslashes_are_read_by_hydra_as_they_are() -> None:
    config = {"clip": math.inf, "floor": -math.inf, "text": "Infinity", "path": "C:\\a\\", "said": "a\\'b"}
    assert Command.parse("p {overrides}").words_for(config, {})[1:] == [
        *("clip=inf", "floor=-inf", "text=Infinity", r"path='C:\a\\'", r"said='a\\\'b'")
    ]


def test_a_command_is_refused_where_a_name_in_it_may_have_no_value() -> None:
    space = {"lr": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}}
    space["momentum"] = {"uniform": [0, 1], "when": {"kind": "a"}}

    def problems(**options: Any) -> str:
        with pytest.raises(SpecError) as refused:
            SweepSpec.parse({"metric": "m", "mode": "max", "space": space, **options})
        return str(refused.value)

    assert "'momentum' does not exist in every configuration: use {args}" in problems(command="p {momentum}")
    assert "no parameter 'lrr'; did you mean 'lr'?" in problems(command="p {lrr}")
    assert "{args} stands for several words" in problems(command="p --all={args}")
    assert "No closing quotation" in problems(command="p 'x")
    assert "setup: a command starts a program of its own" in problems(command="p", setup="a:b")
    assert "recipe: have both: give one" in problems(command="p", recipe="a:b")
    assert "recipe: is required, or a command" in problems()
    spec = SweepSpec.parse({"metric": "m", "mode": "max", "space": space, "command": ["p", "a b", "{lr}"]})
    assert SweepSpec.parse(spec.plain()).command == spec.command == Command("p 'a b' {lr}")


def test_python_is_the_one_that_runs_xaytune(tmp_path: Path) -> None:
    out = tmp_path / "python"
    program = Program(["python", "-c", f"import sys; open({str(out)!r}, 'w').write(sys.executable)"], {})
    assert program.wait_for_exit(30) == 0
    program.close()
    assert os.path.dirname(out.read_text()) == os.path.dirname(sys.executable)


def test_any_folder_is_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "weights").write_text("1")
    (saved / "newest").symlink_to("gone")
    monkeypatch.chdir(saved)
    for path in (str(saved), "."):
        line = f'{{{{"epoch": 1, "score": 1, "checkpoint": "{path}"}}}}'
        ended = run_alone(tmp_path, f"sh -c 'echo \"$0\" >&$XAYTUNE_FD' '{line}'")
        assert (ended.status, ended.failure) == ("completed", None)
        resumed = checkpoint_of(tmp_path / "run")
        assert resumed is not None
        assert (resumed.name, (resumed / "weights").read_text()) == ("saved", "1")


@pytest.mark.slow
def test_a_program_that_was_killed_is_lost_though_a_process_that_it_started_lives(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, time, xaytune\n"
        "trial = xaytune.current_trial()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(600)\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(ProgramLostError):
        run_alone(tmp_path, f"python {program}")
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # that it is there still
