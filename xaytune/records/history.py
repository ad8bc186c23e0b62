"""The history of a trial: a row for every optimizer step, in columns, packed by the trial's actor.

A history file is a row of Arrow IPC streams, one a chunk, each with the columns its steps had: appending
costs the same however long the history is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xaytune.records.trial_record import Best
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import TimeAxis

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FOLDER = "history"
_PLACE = ("epoch", "step", "global_step")
_METRICS = "metrics."
# Told apart from chunks whose metrics have bare names.
_FORMAT = {b"xaytune": b"2"}


class Row(NamedTuple):
    """A step that was trained: its place, and the metrics as they stood when it ended."""

    epoch: int
    step: int
    global_step: int
    metrics: dict[str, float]


def path_for(sweep_dir: Path, trial: int) -> Path:
    """Returns the path of a trial's history."""
    return sweep_dir / FOLDER / f"{trial:05d}.arrows"


def pack(rows: Sequence[Row]) -> bytes:
    """Packs rows into a chunk. A metric that a row lacks is null there; so is one that is no number."""
    import pyarrow as pa

    columns = {name: _array([getattr(row, name) for row in rows], pa.int64()) for name in _PLACE}
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        columns[column(name)] = _array([_number(row.metrics.get(name)) for row in rows], pa.float64())
    table = pa.Table.from_arrays(list(columns.values()), names=list(columns))
    return _stream(table.replace_schema_metadata(_FORMAT))


def column(metric: object) -> str:
    """Returns the name of a metric's column: ``metrics.loss``. No name of a metric is that of another column."""
    return f"{_METRICS}{metric}"


def append(path: Path, chunk: bytes) -> None:
    """Appends a packed chunk to a history file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(chunk)


def cut(path: Path, after: int) -> None:
    """Drops the rows after a step: the trial resumes from there, and trains what follows again.

    Args:
        path: The history file; there may be none.
        after: The last step to keep; 0 drops everything.
    """
    import pyarrow as pa

    if not path.exists():
        return
    history = read(path)
    kept = history[history["global_step"] <= after] if after > 0 else history[:0]
    chunk = b""
    if len(kept):
        chunk = _stream(pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata(_FORMAT))
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(chunk)
    os.replace(temporary, path)


def best(path: Path, objective: Objective) -> Best | None:
    """Returns where the metric was best in a history; None where it never was finite."""
    history = read(path)
    if (name := column(objective.metric)) not in history:
        return None
    values = history[name].to_numpy()
    finite = np.isfinite(values)
    if not finite.any():
        return None
    scores = np.where(finite, objective.sign * values, -np.inf)
    row = history.iloc[int(scores.argmax())]
    metrics = {
        str(name).removeprefix(_METRICS): float(value) for name, value in row.drop(list(_PLACE)).dropna().items()
    }
    return Best(metrics[objective.metric], int(row["epoch"]) + 1, int(row["global_step"]), metrics)


def read(path: Path) -> pd.DataFrame:
    """Reads a history: a row a step, in the order of training; a half-written last chunk is dropped.

    Returns:
        Columns ``epoch``, ``step``, ``global_step`` and a float column ``metrics.NAME`` for each metric. Empty if
        there is no such file.
    """
    import pyarrow as pa

    data = pack([]) + (path.read_bytes() if path.exists() else b"")
    reader = pa.BufferReader(data)
    tables = []
    while reader.tell() < len(data):
        try:
            tables.append(_renamed(pa.ipc.open_stream(reader).read_all()))
        except (pa.ArrowInvalid, OSError):
            break
    frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas()
    return frame


def measured(rows: pd.DataFrame, metric: str, axis: TimeAxis, finished: int) -> tuple[list[int], list[float]]:
    """Returns the finite values of the metric as it was measured, and when that was.

    Rows hold what was measured last. Where a trial was evaluated after each third epoch or step, say, its values
    are those of these, and of its last one.

    Args:
        rows: The history of a trial.
        metric: Its name.
        axis: What time is counted in.
        finished: Epochs the trial has finished; a row of a later one is of an epoch that is not over.
    """
    name = column(metric)
    if name not in rows:
        return [], []
    if axis.by_step:
        known = rows.assign(time=rows["global_step"])
    else:
        known = rows.drop_duplicates("epoch", keep="last")
        known = known.assign(time=known["epoch"] + 1)
        known = known[known["time"] <= max(1, finished)]
    known = known[np.isfinite(known[name])]
    # When the last value came, training was over: that need be no multiple of what is between the others.
    regular = known[:-1]
    every = math.gcd(*regular["time"][regular[name] != regular[name].shift()]) or 1
    known = known[(known["time"] % every == 0) | (known["time"] == known["time"].max())]
    return [int(time) for time in known["time"]], [float(value) for value in known[name]]


def _renamed(table: pa.Table) -> pa.Table:
    """A chunk with the names of today: metrics once had their own, and one named like a place was left out."""
    if (table.schema.metadata or {}).items() >= _FORMAT.items():
        return table
    return table.rename_columns([name if name in _PLACE else column(name) for name in table.column_names])


def _array(values: Sequence[float | None], kind: pa.DataType) -> pa.Array:
    """Returns an array of numbers. pyarrow's own way imports pandas, 50 MB and half a second, in each actor."""
    import pyarrow as pa

    known = np.packbits(np.array([value is not None for value in values], bool), bitorder="little")
    numbers = np.array([0 if value is None else value for value in values], kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(values), [pa.py_buffer(known), pa.py_buffer(numbers)])


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # an integer beyond all floats
        return None


def _stream(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
