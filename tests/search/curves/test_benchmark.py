"""The benchmark on trainings that happen: what one method has trained, no other trains again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks.search.command import main

pytestmark = pytest.mark.slow


def test_curves_are_trained_once_and_give_the_same_table_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def table(results: str) -> list[str]:
        options = ["--tasks", "regression", "--methods", "asha", "fifo", "--seeds", "1", "--share", "0.05"]
        main(["--real", str(tmp_path), *options, "--random", "3", "--results", str(tmp_path / results)])
        return [line.partition("  model")[0] for line in capsys.readouterr().out.splitlines() if "±" in line]

    first = table("first")
    trained = (tmp_path / "regression.jsonl").read_text().splitlines()
    assert first[1].startswith("asha, 4 workers: ")
    assert table("second") == first
    assert (tmp_path / "regression.jsonl").read_text().splitlines() == trained
    epochs = Counter(json.loads(line)["config"] for line in trained)
    assert max(epochs.values()) == 27
