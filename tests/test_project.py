"""What the project promises about itself."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

import xaytune


@pytest.mark.slow
def test_imports_point_one_way() -> None:
    done = subprocess.run(["lint-imports", "--no-cache"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _printed_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["xaytune", "xaytune.cli.main", "xaytune.records.results", "xaytune.sweep.loader", "xaytune.ray_tune.running"],
)
def test_importing_it_imports_neither_ray_nor_torch(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'ray', 'torch'}} & set(sys.modules)))"
    assert _printed_by(program) == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["xaytune.ray_tune.tune_sweep", "xaytune.ray_tune.actor", "xaytune.ray_tune.slots"]
)
def test_the_driver_and_actors_do_without_torch(module: str) -> None:
    program = f"import sys, {module}; print('torch' in sys.modules)"
    assert _printed_by(program) == "False"


@pytest.mark.slow
def test_a_program_that_runs_alone_imports_nothing_that_only_sweeps_need() -> None:
    program = (
        "import sys, xaytune; xaytune.current_trial();"
        "print(sorted({'cloudpickle', 'optuna', 'pandas', 'pydantic', 'ray'} & set(sys.modules)))"
    )
    assert _printed_by(program) == "[]"


@pytest.mark.slow
def test_an_actor_packs_histories_without_pandas() -> None:
    program = (
        "import sys, xaytune.records.history as h; h.pack([h.Row(0, 0, 1, {})]); print('pandas' in sys.modules)"
    )
    assert _printed_by(program) == "False"


def test_the_exported_names_are_these() -> None:
    assert xaytune.__all__ == [
        "CallbackManager",
        "CheckpointError",
        "ClusterError",
        "DashboardError",
        "JournalError",
        "LiveView",
        "PicturesError",
        "RemoteError",
        "Results",
        "SessionError",
        "SkipTrial",
        "SpecError",
        "StorageError",
        "Sweep",
        "Tracker",
        "TrainState",
        "Trainer",
        "Trial",
        "XaytuneError",
        "current_trial",
        "resume",
    ]
    assert all(getattr(xaytune, name).__name__ == name for name in xaytune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Sweeps'"):
        xaytune.Sweeps  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert xaytune.__version__ == importlib.metadata.version("xaytune")


@pytest.mark.slow
def test_the_cluster_file_is_valid_to_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = YAML(typ="safe").load(Path("cluster.yaml").read_text())
    validate_config(prepare_config(config))
    start = " ".join(config["head_start_ray_commands"])
    assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in start


def test_the_nodes_of_the_cluster_file_have_an_image_that_was_chosen_and_a_python_and_ray_that_fit() -> None:
    config = YAML(typ="safe").load(Path("cluster.yaml").read_text())
    images = {node["node_config"]["ImageId"] for node in config["available_node_types"].values()}
    assert images == {"ami-CHOOSE-ONE"}, "no image is right in every region: AWS refuses this one"
    setup = "\n".join(config["setup_commands"])
    python, ray = re.findall(r"--python (\d+\.\d+) |\"ray==([\d.]+)\"", setup)
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(python[0])
    (required,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "ray")
    assert required.specifier.contains(ray[1])
