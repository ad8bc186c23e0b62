"""Trials and histories of a sweep as tables in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xaytune.records.results import Results

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "Format", "export"]

Format = Literal["csv", "parquet", "json"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "json")


def export(results: Results, folder: Path, format: Format) -> list[Path]:
    """Writes ``trials`` (a row a trial) and ``history`` (a row for every step of each trial).

    Args:
        results: The sweep.
        folder: Where to write them; made if missing.
        format: Of the files; ``json`` is an array of objects, a row each.

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
    if file.suffix == ".csv":
        table.to_csv(file, index=False)
    elif file.suffix == ".json":
        finite = table.notna() & ~table.isin([math.inf, -math.inf])  # JSON has no others
        known = table.astype(object).where(finite, None)
        file.write_text(json.dumps(known.to_dict("records")))
    else:
        _of_one_type(table).to_parquet(file, index=False)
    return file


def _of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    """Turns columns that mix types, as a choice of ``[1, auto]`` does, into text: Parquet holds no others."""
    mixed = [
        name
        for name in table.columns
        if table[name].dtype == object and len({*map(type, table[name].dropna())}) > 1
    ]
    return table.assign(**{name: table[name].map(str, na_action="ignore") for name in mixed})
