"""What the steps of many members give: metrics of all at once, and each member's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xaytune.trainer.fused.program import Passed
from xaytune.trainer.metrics import number
from xaytune.trainer.step import Stepped, WindowMeans


def metrics_of(passed: Passed) -> dict[str, Any]:
    """Returns the metrics of a pass, the loss first."""
    given = {n: v for n, v in (passed.values | passed.plain).items() if n.startswith("metric ")}
    return {"loss": passed.values["loss"].detach()} | {
        n.removeprefix("metric "): v.detach() if isinstance(v, Tensor) else number(v) for n, v in given.items()
    }


def means_of(passes: Sequence[Passed], shares: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """Returns means of the metrics over a window, and what its batches weigh together, by what each weighs."""
    means = WindowMeans()
    for passed, share in zip(passes, shares, strict=True):
        means.add(metrics_of(passed), share)
    return means.metrics(), means.weight


def by_member(values: Sequence[Mapping[str, Any]], members: int) -> list[list[Stepped]]:
    """Returns what each member's steps gave: of the last one tensors, of those before it numbers."""
    *before, last = values
    columns = [value.unbind() if isinstance(value, Tensor) else [value] * members for value in last.values()]
    given = [[Stepped(dict(zip(last, row, strict=True)), skipped=False)] for row in zip(*columns, strict=True)]
    if not before:
        return given
    tables = [_read([row[name] for row in before], members) for name in last]  # (steps, members) each
    for member, steps in enumerate(given):
        rows = zip(*[[row[member] for row in table] for table in tables], strict=True)
        steps[:0] = [Stepped(dict(zip(last, row, strict=True)), skipped=False) for row in rows]
    return given


def _read(column: Sequence[Any], members: int) -> list[list[Any]]:
    """Returns a metric of several steps as numbers (steps, members)."""
    if isinstance(column[0], Tensor):
        numbers: list[list[Any]] = torch.stack(list(column)).tolist()
        return numbers
    return [[value] * members for value in column]
