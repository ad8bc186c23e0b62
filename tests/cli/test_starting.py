"""The front door: help, what `init` writes, what a storage holds, and what a shell completes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from tests.report.journals import ASHA, Written, simulated
from xaytune.cli.main import main
from xaytune.records.journal import FILE_NAME
from xaytune.records.naming import new_sweep_folder
from xaytune.records.results import Results

KINDS = ["trainer", "loop", "lightning", "transformers", "command"]


def xaytune(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_help_shows_every_command_in_a_group_whole_and_examples() -> None:
    told = xaytune("--help").output
    for heading in ("Start:", "Run:", "Look:", "On a cluster:", "Shell:", "Examples:"):
        assert heading in told
    for name, command in main.commands.items():
        assert told.count(f"\n  {name} ") == 1
        assert "..." not in command.get_short_help_str(60), name


@pytest.mark.parametrize("kind", KINDS)
def test_init_writes_a_recipe_and_a_spec_and_overwrites_nothing(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "my sweep"
    told = xaytune("init", folder, "--kind", kind)
    assert told.exit_code == 0
    assert "xaytune run sweep.yaml" in told.output
    assert f"cd '{folder}'" in told.output
    (recipe,) = folder.glob("*.py")
    compile(recipe.read_text(), str(recipe), "exec")
    spec = YAML(typ="safe").load((folder / "sweep.yaml").read_text())
    assert ("command" if kind == "command" else "recipe") in spec
    before = recipe.read_text()
    again = xaytune("init", folder, "--kind", kind)
    assert again.exit_code == 2
    assert "would be overwritten" in again.output
    assert recipe.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_init_writes_trains_as_it_is_and_an_epoch_of_it_tells_what_the_sweep_costs(
    tmp_path: Path, kind: str
) -> None:
    xaytune("init", tmp_path, "--kind", kind)
    if kind in ("loop", "command"):
        assert "completed: best eval_accuracy" in run_in(tmp_path, "try", "sweep.yaml")
    if kind == "command":
        return
    told = run_in(tmp_path, "check", "sweep.yaml", "--time")
    timed = re.search(r"^timed +([\d.e-]+) s an epoch here, and [\d.e-]+ s before", told, re.MULTILINE)
    cost = re.search(r"^cost +at most ([\d.e-]+) h of training, were no trial stopped", told, re.MULTILINE)
    assert timed is not None, told
    assert cost is not None, told
    assert float(cost[1]) * 3600 > 0.9 * 16 * 9 * float(timed[1])


def run_in(folder: Path, *arguments: str) -> str:
    """Runs a command in a folder, in a fork; returns what it printed."""
    import torch._dynamo  # noqa: F401  (else each fork would)

    printed = folder / "printed.txt"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ["PYTHONPATH"] = os.getcwd()
            os.chdir(folder)
            done = xaytune(*arguments)
            printed.write_text(done.output + "".join(traceback.format_exception(done.exception)))
            code = done.exit_code
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, printed.read_text()
    return printed.read_text()


def test_list_shows_the_sweeps_of_a_storage_with_state_best_and_age(tmp_path: Path) -> None:
    assert "there is no sweep in" in xaytune("list", "--storage", tmp_path).output
    best = simulated(tmp_path / "done").best
    assert best is not None
    Written(tmp_path / "new", scheduler=ASHA).results()
    simulated(tmp_path / "budget", num_samples=-1, budget={"epochs": 9})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.jsonl").write_text("no event\n{}\n")
    told = xaytune("list", "--storage", tmp_path)
    assert told.exit_code == 0
    heading, *rows = [line.split("  ") for line in told.output.splitlines() if "damaged" not in line]
    assert heading[0] == "sweep"
    cells = {row[0].strip(): " ".join(filter(None, map(str.strip, row[1:]))) for row in rows}
    assert cells["done"] == f"completed 9/9 score {best.value:.4g} -"  # its time is virtual
    assert cells["written"] == "running 0/3 - just now"
    assert re.match(r"completed \d+ score ", cells["budget"])  # how many there will be was not known
    assert "damaged: " in told.output
    listed = json.loads(CliRunner().invoke(main, ["list", "--storage", str(tmp_path), "--json"]).stdout)
    assert {sweep["sweep"]: sweep["state"] for sweep in listed} == {
        "done": "completed",
        "written": "running",
        "budget": "completed",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    told = xaytune("completion", shell)
    assert told.exit_code == 0
    assert "_XAYTUNE_COMPLETE" in told.output


@pytest.mark.slow
def test_a_shell_completes_commands_and_names_of_sweeps(tmp_path: Path) -> None:
    simulated(tmp_path / "digits")

    def completed(words: str) -> list[str]:
        environment = {
            "_XAYTUNE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = subprocess.run(
            [sys.executable, "-c", "from xaytune.cli.main import main; main(prog_name='xaytune')"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert completed("xaytune rep") == ["plain,report"]
    assert completed(f"xaytune best --storage {tmp_path} dig") == ["plain,digits"]


def test_check_shows_ten_configurations_that_the_sweep_begins_with(tmp_path: Path) -> None:
    space = "{x: {uniform: [0, 1]}, y: 7}"
    (tmp_path / "s.yaml").write_text(
        f"{{recipe: 'tests.recipes:curve', metric: score, mode: max, space: {space}, num_samples: 12}}"
    )
    told = xaytune("check", tmp_path / "s.yaml").output
    shown = [line.split(None, 1)[1] for line in told.splitlines() if line.strip()[:1].isdigit()]
    assert len(shown) == 10
    swept = simulated(tmp_path / "sweep", space={"y": 7}, scheduler={"algorithm": "fifo"}, num_samples=12)
    assert shown == [f"x {trial.config['x']:.4g}" for trial in swept.trials[:10]]
    assert "y 7 (the same in all trials)" in told


def test_check_and_simulate_try_the_configurations_of_a_warm_start_first(tmp_path: Path) -> None:
    earlier = simulated(tmp_path / "earlier", scheduler={"algorithm": "fifo"})
    spec = (
        "{recipe: 'tests.recipes:curve', metric: score, mode: max, space: {x: {uniform: [0, 1]}}, num_samples: 3, "
        "warm_start: [%s]}"
    )
    (tmp_path / "s.yaml").write_text(spec % "earlier")
    told = xaytune("check", tmp_path / "s.yaml", "--storage", tmp_path).output
    assert earlier.best is not None
    assert f"    0  x {earlier.best.config['x']:.4g}\n" in told
    curves = ("--curves", "tests.simulation.surrogates:power_law", "--name", "simulated", "--storage", tmp_path)
    assert xaytune("simulate", tmp_path / "s.yaml", *curves).exit_code == 0
    assert Results(tmp_path / "simulated").trials[0].config == earlier.best.config
    (tmp_path / "s.yaml").write_text(spec % "nowhere")
    refused = xaytune("check", tmp_path / "s.yaml", "--storage", tmp_path)
    assert refused.exit_code == 2
    assert f"{tmp_path / 's.yaml'}:1 warm_start.0: no sweep 'nowhere'" in refused.output


def test_check_says_what_a_population_does(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "{recipe: 'tests.recipes:curve', metric: score, mode: max, space: {x: {uniform: [0, 1]}}, num_samples: 4, "
        "scheduler: {algorithm: pbt, perturbation_interval: 3, hyperparam_mutations: [x]}}"
    )
    told = xaytune("check", tmp_path / "s.yaml").output
    assert "pbt: every 3 epochs the worst 25% of the trials go on from the best, and change x\n" in told


def test_the_name_of_a_sweep_that_was_killed_as_it_began_is_free(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / FILE_NAME).touch()
    assert "no sweep" in xaytune("status", "killed", "--storage", tmp_path).output
    assert new_sweep_folder(str(tmp_path), "killed", "s").local == tmp_path / "killed"
    assert simulated(tmp_path / "killed").sweep.done


def test_a_launch_tells_the_name_that_its_sweep_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(connection: object, command: object, name: str, *others: object) -> SimpleNamespace:
        return SimpleNamespace(job=f"{name}-1")

    monkeypatch.setattr(
        "xaytune.cluster.connection.connected", lambda *to: nullcontext(SimpleNamespace(options=""))
    )
    monkeypatch.setattr("xaytune.cluster.sweeps.submit", submit)
    monkeypatch.chdir(tmp_path)
    Path("my sweep (2).yaml").write_text(
        "{recipe: 'tests.recipes:curve', metric: score, mode: max, space: {x: {uniform: [0, 1]}}, num_samples: 3}"
    )
    told = xaytune("launch", "my sweep (2).yaml", "--address", "head:8265", "--detach").output
    assert told.startswith("my-sweep-2 was launched as my-sweep-2-1;")
    assert new_sweep_folder(str(tmp_path), None, "my sweep (2)").name == "my-sweep-2"


def test_simulate_refuses_curves_of_another_metric(tmp_path: Path) -> None:
    simulated(tmp_path / "earlier")
    (tmp_path / "s.yaml").write_text(
        "{recipe: 'tests.recipes:curve', metric: loss, mode: min, space: {x: {uniform: [0, 1]}}, num_samples: 3}"
    )
    done = xaytune("simulate", tmp_path / "s.yaml", "--curves", "earlier", "--storage", tmp_path)
    assert done.exit_code == 2
    assert "metric: the curves of earlier are of score (max), and this spec is for loss (min)" in done.output


def test_best_config_is_the_one_to_train_again(tmp_path: Path) -> None:
    results = simulated(tmp_path / "sweep", scheduler={"algorithm": "fifo"})
    assert json.loads(xaytune("best", tmp_path / "sweep", "--config").output) == results.best_config
    assert xaytune("best", tmp_path / "sweep", "--config", "--json").exit_code == 2


def test_check_tells_which_parameters_a_command_does_not_name(tmp_path: Path) -> None:
    def told(command: str) -> str:
        space = "{lr: {uniform: [0, 1]}, model: {width: {choice: [1, 2]}, depth: 3}}"
        (tmp_path / "s.yaml").write_text(
            f"{{command: '{command}', metric: score, mode: max, space: {space}, num_samples: 2}}"
        )
        return xaytune("check", tmp_path / "s.yaml").output

    assert "the command does not name model.width, model.depth: write {model.width}" in told("python -m t {lr}")
    for whole in ("{lr} {model}", "{args}", "{overrides}", "--config {config_file}"):
        assert "does not name" not in told(f"python -m t {whole}")


def test_check_tells_of_a_script_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = "{command: 'python -u train.py {x}', metric: score, mode: max, space: {x: {uniform: [0, 1]}}}"
    (tmp_path / "s.yaml").write_text(spec)
    refused = xaytune("check", "s.yaml")
    assert refused.exit_code == 2
    assert f"command: there is no script 'train.py' in {tmp_path}: give its path from there" in refused.stderr
    (tmp_path / "train.py").touch()
    assert xaytune("check", "s.yaml").exit_code == 0
