"""The history of a trial: a row for every optimizer step, in columns, packed where it is made.

A history file is a row of Arrow IPC streams, one a chunk, each with the columns its steps had: appending
costs the same however long the history is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xaytune.records.state import Best

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FOLDER", "Row", "append", "best", "cut", "pack", "path_for", "read"]

FOLDER = "history"
_PLACE = ("epoch", "step", "global_step")


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
    """Packs rows into a chunk. A metric that a row lacks is null there; one named like a place is left out."""
    import pyarrow as pa

    places = {name: [getattr(row, name) for row in rows] for name in _PLACE}
    names = dict.fromkeys(name for row in rows for name in row.metrics if name not in _PLACE)
    metrics = {name: pa.array([row.metrics.get(name) for row in rows], pa.float64()) for name in names}
    table = pa.table({**{name: pa.array(values, pa.int64()) for name, values in places.items()}, **metrics})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def append(path: Path, chunk: bytes) -> None:
    """Appends a packed chunk to a history file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(chunk)


def cut(path: Path, after: int) -> None:
    """Drops the rows after a step: the trial goes on from there, and trains what follows anew.

    Args:
        path: The history file; there may be none.
        after: The last step to keep; 0 drops everything.
    """
    import pyarrow as pa

    if not path.exists():
        return
    history = read(path)
    kept = history[history["global_step"] <= after] if after > 0 else history[:0]
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        if len(kept):
            table = pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata()
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
    os.replace(temporary, path)


def best(path: Path, metric: str, maximize: bool) -> Best | None:
    """Returns where the metric was best in a history; None where it never was finite."""
    history = read(path)
    if metric not in history:
        return None
    values = history[metric].to_numpy()
    finite = np.isfinite(values)
    if not finite.any():
        return None
    goodness = np.where(finite, values if maximize else -values, -np.inf)
    row = history.iloc[int(goodness.argmax())]
    metrics = {str(name): float(value) for name, value in row.drop(list(_PLACE)).dropna().items()}
    return Best(float(row[metric]), int(row["epoch"]) + 1, int(row["global_step"]), metrics)


def read(path: Path) -> pd.DataFrame:
    """Reads a history: a row a step, in the order of training; a half-written last chunk is dropped.

    Returns:
        Columns ``epoch``, ``step``, ``global_step`` and a float column for each metric. Empty if there is no
        such file.
    """
    import pyarrow as pa

    data = pack([]) + (path.read_bytes() if path.exists() else b"")
    reader = pa.BufferReader(data)
    tables = []
    while reader.tell() < len(data):
        try:
            tables.append(pa.ipc.open_stream(reader).read_all())
        except (pa.ArrowInvalid, OSError):
            break
    frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas()
    return frame
