"""Trials and histories of a sweep as tables in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xaytune.records.results import Results
from xaytune.sweep import values

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "json"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "json")


def export(results: Results, folder: Path, format: Format) -> list[Path]:
    """Writes ``trials`` (a row a trial) and ``history`` (a row for every step of each trial).

    Args:
        results: The sweep.
        folder: Where to write them; made if missing.
        format: Of the files; ``json`` is an array of objects, a row each. What the format has no word for, as a
            class or a tuple in a configuration, is written as in the journal.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"trials": results.to_dataframe(), "history": _history(results)}
    return [_write(table, folder / f"{name}.{format}") for name, table in tables.items()]


def _history(results: Results) -> pd.DataFrame:
    """The histories of all trials, one below the other."""
    import pandas as pd

    histories = []
    for trial in results.trials:
        history = results.history(trial.number)
        history.insert(0, "trial", trial.number)
        histories.append(history)
    return pd.concat(histories, ignore_index=True) if histories else pd.DataFrame({"trial": []})


def _write(table: pd.DataFrame, file: Path) -> Path:
    import pandas as pd

    if file.suffix == ".json":
        missing = table.isna()
        missing[table.select_dtypes(object).columns] = False  # nan is a value there
        known = table.astype(object).mask(missing, None)
        rows = [
            {name: _plain(name, value) for name, value in zip(known, row, strict=True)}
            for row in known.itertuples(index=False, name=None)  # to_dict would make Python's of numpy's numbers
        ]
        file.write_text(json.dumps(rows, allow_nan=False))
        return file
    objects = [str(name) for name in table if table[name].dtype == object]
    cells = {name: [_cell(value) for value in table[name]] for name in objects}
    written = table.assign(**{name: pd.Series(column, table.index, object) for name, column in cells.items()})
    if file.suffix == ".csv":
        written.to_csv(file, index=False)
    else:
        _of_one_type(written).to_parquet(file, index=False)
    return file


def _plain(column: Any, value: Any) -> Any:
    """A value as JSON can hold it: a metric that is not finite is null."""
    if str(column).startswith("config."):
        return values.write(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    """A value as a cell holds it: scalars as they are, all else as its text in the journal."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # a file's name may be no Unicode
    if value is None or type(value) in (bool, int, float):
        return value
    return json.dumps(values.write(value))


def _of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    """Turns columns that Parquet cannot hold into text: of mixed types, as ``[1, auto]``, or of huge integers."""
    objects = {name: table[name].dropna() for name in table.columns if table[name].dtype == object}
    unheld = [name for name, found in objects.items() if len({*map(type, found)}) > 1 or any(map(_is_huge, found))]
    return table.assign(**{name: table[name].map(str, na_action="ignore") for name in unheld})


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63
