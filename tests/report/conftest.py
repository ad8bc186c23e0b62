from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import Run
from xaytune.records.results import Results

SPACE = {
    "x": {"uniform": [0.3, 1]},
    "lr": {"loguniform": [1e-4, 0.1]},
    "kind": {"choice": ["sgd", "adamw"]},
    "momentum": {"uniform": [0, 1], "when": {"kind": "sgd"}},
}
ASHA = {"algorithm": "asha", "max_t": 9, "reduction_factor": 3}


@pytest.fixture(scope="session")
def swept(run_in: Run) -> Results:
    """A sweep under ASHA with trials that are completed, stopped and failed."""
    return run_in("fails_for_some", space=SPACE, scheduler=ASHA, num_samples=16)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, which commands write to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
