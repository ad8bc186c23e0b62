from __future__ import annotations

import functools
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import interpreters
from xaytune.records.results import Results
from xaytune.trial.common import launching

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What a test is marked by: the fixtures that it uses.
_MARKERS = {"ray": "ray_folder", "browser": "chromium", "cluster": "hosts"}
# Those that take longest begin first: else one worker is busy with them at the end, and the others wait.
_FIRST = ("test_cluster.py", "test_faults.py")
Run = Callable[..., Results]


def pytest_configure() -> None:
    """Gives what tests start, and xdist's workers, one thread each: two tests run at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by what it uses, see .github/CONTRIBUTING.md, and puts the longest first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)
    for item in items:
        if "ray_tune" in item.path.parts:  # some start a Ray of their own
            item.add_marker("ray")
        for marker, fixture in _MARKERS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


def pytest_collection_finish() -> None:
    """Keeps what is there by now out of collections of garbage: libraries ask for whole ones, of half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _imported_once() -> Iterator[None]:
    """Template processes that this process starts are forks of one interpreter: see tests/interpreters.py."""
    interpreters.server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "subprocess", SimpleNamespace(Popen=interpreters.ForkedInterpreter))
        yield


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sessions: a short path, for its sockets, that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_here(ray_folder: Path) -> Iterator[None]:
    """One Ray for all tests that run sweeps in this process."""
    import ray  # the tests without Ray do not wait for it

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(ray_folder))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def run_in(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a sweep of a recipe; options replace the defaults here."""
    from xaytune.ray_tune.sweep import Sweep

    def run_sweep(
        recipe: str, module: str = "tests.recipes", storage: Path | None = None, **options: Any
    ) -> Results:
        defaults: dict[str, Any] = {
            "metric": "score",
            "mode": "max",
            "space": {"x": {"uniform": [0, 1]}},
            "callbacks": ["tests.callbacks:note_events"],
        }
        sweep = Sweep(f"{module}:{recipe}", **{**defaults, **options})
        return sweep.run(storage=storage or tmp_path_factory.mktemp("runs"))

    return run_sweep


@pytest.fixture
def run(run_in: Run, tmp_path: Path) -> Run:
    """The same, with the sweeps of a test in its own folder."""
    return functools.partial(run_in, storage=tmp_path)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a bucket on a server that speaks S3."""
    from moto.server import ThreadedMotoServer  # the tests without one do not wait for it

    from xaytune.records.remote import RemoteFolder

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&allow_bucket_creation=true"
    uri = f"s3://key:secret@bucket?{options}"
    RemoteFolder(uri).put("made", b"")
    yield uri
    server.stop()
