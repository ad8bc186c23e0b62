"""Tables: names of users and ours live apart, and a value is the same everywhere."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.sweep.drawn import configurations, typed
from tests.sweep.values_to_import import Model, Optimizer
from xaytune.records import history
from xaytune.records.export import export
from xaytune.records.history import Row
from xaytune.records.journal import FILE_NAME, Journal
from xaytune.records.results import Results
from xaytune.sweep.objective import Objective

METRICS = {"trial": 7.0, "status": 5.0, "value": 3.0, "epoch": 99.0, "step": 1.5, "x,y": 1.0, "": 4.0}


def write(folder: Path, *configs: dict[str, Any]) -> Results:
    journal = Journal(folder / FILE_NAME)
    journal.write(
        "sweep", state="running", name="s", spec={"metric": "acc", "mode": "max"}, num_trials=len(configs),
        host=socket.gethostname(), pid=os.getpid(),
    )  # fmt: skip
    for number, config in enumerate(configs):
        journal.write("trial", number, config=config, seed=0)
        metrics = {"acc": 0.5 + number, **METRICS}
        best = {"value": 0.5 + number, "epoch": 1, "global_step": 2, "metrics": metrics}
        place = {"epoch": 1, "global_step": 2, "metrics": metrics, "best": best}
        journal.write("end", number, status="completed", reason=None, **place)
        rows = [Row(0, step, step, metrics) for step in (1, 2)]
        history.append(history.path_for(folder, number), history.pack(rows))
    journal.close()
    return Results(folder)


def read_json(file: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(file.read_text()))


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_metrics_named_as_columns_of_ours_overwrite_nothing(tmp_path: Path, format: Any) -> None:
    config = {"trial": 1, "a b": {"c d": "x\ny"}, "config": {"metrics": {"trial": True}}}
    files = export(write(tmp_path / "s", config), tmp_path / "out", format)
    read: dict[str, Any] = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": read_json}
    trials, rows = (read[format](file) for file in files)
    assert (trials["trial"][0], trials["status"][0], trials["value"][0]) == (0, "completed", 0.5)
    assert (trials["config.trial"][0], trials["config.a b.c d"][0]) == (1, "x\ny")
    assert bool(trials["config.config.metrics.trial"][0]) is True
    assert (rows["trial"].tolist(), rows["epoch"].tolist(), rows["step"].tolist()) == ([0, 0], [0, 0], [1, 2])
    for name, value in METRICS.items():
        assert trials[f"metrics.{name}"][0] == value
        assert rows[f"metrics.{name}"].tolist() == [value, value]


TYPES = {
    "clip": math.inf, "size": (8, 8), "widths": {1: 2}, "act": Model.Block, "opt": Optimizer.SGD, "n": np.int64(3),
    "flag": False, "none": None, "list": [1, (2,)],
}  # fmt: skip


def test_a_table_has_the_values_themselves_and_files_have_their_text(tmp_path: Path) -> None:
    results = write(tmp_path / "s", TYPES, {"clip": 1.0, "flag": 0, "n": "auto"})
    frame = results.to_dataframe()
    assert frame["config.clip"].tolist() == [math.inf, 1.0]
    for name in TYPES.keys() - {"clip"}:
        assert typed(frame[f"config.{name}"][0]) == typed(TYPES[name])
    assert typed(frame["config.flag"].tolist()) == typed([False, 0])
    [trials, _] = export(results, tmp_path, "json")
    row = json.loads(trials.read_text())[0]
    assert (row["config.clip"], row["config.size"]) == ({"$float": "inf"}, {"$tuple": [8, 8]})
    [trials, _] = export(results, tmp_path, "csv")
    assert pd.read_csv(trials)["config.size"][0] == '{"$tuple": [8, 8]}'
    [trials, _] = export(results, tmp_path, "parquet")
    assert pd.read_parquet(trials)["config.n"].tolist() == ['{"$numpy": ["int64", 3]}', "auto"]


@pytest.mark.slow
@settings(max_examples=50)
@given(configurations)
def test_any_configuration_comes_back_from_a_journal_equal_and_of_its_types(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    results = write(tmp_path_factory.mktemp("s"), {"x": value, "nested": {"y": [value]}})
    assert typed(results.trials[0].config) == typed({"x": value, "nested": {"y": [value]}})


def test_an_integer_stays_one_where_other_trials_have_none(tmp_path: Path) -> None:
    results = write(tmp_path / "s", {"n": 2**53 + 1}, {})
    [csv, _] = export(results, tmp_path, "csv")
    assert str(2**53 + 1) in csv.read_text()
    [parquet, _] = export(results, tmp_path, "parquet")
    assert pd.read_parquet(parquet, dtype_backend="numpy_nullable")["config.n"].tolist() == [2**53 + 1, pd.NA]


@pytest.mark.parametrize("huge", [2**70, -(2**63) - 1])
def test_an_integer_that_parquet_cannot_hold_is_text_there(tmp_path: Path, huge: int) -> None:
    [parquet, _] = export(write(tmp_path / "s", {"n": huge}, {"n": 1}), tmp_path, "parquet")
    assert pd.read_parquet(parquet)["config.n"].tolist() == [str(huge), "1"]


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_text_that_is_no_unicode_can_be_exported(tmp_path: Path, format: Any) -> None:
    [trials, _] = export(write(tmp_path / "s", {"file": "caf\udce9"}), tmp_path, format)
    assert b"caf\\udce9" in trials.read_bytes()


def test_a_value_that_cannot_be_imported_here_does_not_keep_the_results_from_being_read(tmp_path: Path) -> None:
    results = write(tmp_path, {"act": Model.Block})
    text = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(text.replace("tests.sweep.values_to_import", "gone"))
    results = Results(tmp_path)
    assert repr(results.trials[0].config["act"]) == "gone:Model.Block"
    assert export(results, tmp_path / "out", "csv")


def test_metrics_that_are_no_numbers_or_have_no_text_as_name_do_not_break_a_history(tmp_path: Path) -> None:
    rows: Any = [Row(0, 1, 1, {5: 1.0, "list": [1], "huge": 10**400, "ok": 2})]  # type: ignore[dict-item]
    history.append(tmp_path / "history" / "x", history.pack(rows))
    frame = history.read(tmp_path / "history" / "x")
    assert frame["metrics.5"].tolist() == [1.0]
    assert frame["metrics.ok"].tolist() == [2.0]
    assert frame["metrics.list"].isna().all()
    assert frame["metrics.huge"].isna().all()


def test_a_history_of_the_first_version_is_read_and_cut_and_appended_to(tmp_path: Path) -> None:
    old = pa.table(
        {"epoch": [0, 0], "step": [1, 2], "global_step": [1, 2], "loss": [0.5, 0.25], "metrics.x": [1.0, 2.0]}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, old.schema) as writer:
        writer.write_table(old)
    path = tmp_path / "history" / "00000.arrows"
    history.append(path, bytes(sink.getvalue()))
    history.append(path, history.pack([Row(0, 3, 3, {"loss": 0.75})]))
    for _ in range(2):
        frame = history.read(path)
        assert frame["metrics.loss"].tolist() == [0.5, 0.25, 0.75]
        assert frame["metrics.metrics.x"].tolist()[:2] == [1.0, 2.0]
        history.cut(path, after=3)
    best = history.best(path, Objective("loss", "min"))
    assert best is not None
    assert (best.value, best.global_step, best.metrics) == (0.25, 2, {"loss": 0.25, "metrics.x": 2.0})
