"""A sweep whose trials would see no GPU, where there are some, is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaytune.sweep.gpus import count_gpus, unused_gpus
from xaytune.sweep.spec import SweepSpec


def spec(**options: object) -> SweepSpec:
    space = {"x": {"uniform": [0, 1]}}
    return SweepSpec.parse({"recipe": "a:b", "metric": "m", "mode": "max", "space": space, **options})


def test_gpus_that_no_trial_reserves_are_told_with_what_to_write() -> None:
    told = unused_gpus(spec(), 2)
    assert told is not None
    assert told.startswith("2 GPUs are there, and trials see none")
    assert "resources_per_trial: {cpu: 1, gpu: 1}" in told


@pytest.mark.parametrize("reserved", [{"cpu": 1, "gpu": 0.5}, [{"cpu": 1}, {"gpu": 1}]])
def test_nothing_is_told_where_there_are_none_or_they_are_reserved(reserved: object) -> None:
    assert unused_gpus(spec(), 0) is None
    assert unused_gpus(spec(resources_per_trial=reserved), 2) is None


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1", 2)])
def test_gpus_are_counted_as_far_as_they_are_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus(tmp_path) == count
