"""The lines that `best` and the report show load what was trained."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xaytune.report.loading import lines_to_load
from xaytune.testing.training import JudgedRun, weights_of

KINDS = {
    "trainer": ("tests.trainer.loops_with_events:with_trainer", "tests.trainer.own_loops:network"),
    "own loop": ("tests.trainer.own_loops:by_epochs", "tests.trainer.own_loops:network"),
    "lightning": (
        "tests.integrations.lightning_recipes:by_epochs",
        "tests.integrations.lightning_recipes:Classifier",
    ),
    "transformers": ("tests.integrations.transformers_recipes:by_epochs", None),
}


def found(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "kind",
    ["trainer", "own loop", *(pytest.param(k, marks=pytest.mark.slow) for k in ("lightning", "transformers"))],
)
def test_the_lines_load_the_model(kind: str, tmp_path: Path) -> None:
    if kind in ("lightning", "transformers"):
        pytest.importorskip(kind)
    recipe, model = KINDS[kind]
    run = JudgedRun(tmp_path)
    weights = found(recipe)(run)
    lines = lines_to_load(str(run.latest_checkpoint))
    assert 2 <= len(lines) <= 3
    shown = "\n".join(lines).replace(repr(str(run.latest_checkpoint)), "path")
    assert shown in Path(".docs/pages/looking.md").read_text().replace("\n\n", "\n")  # as ruff formats it
    names = {} if model is None else {"model": found(model)(), "module": found(model)()}
    exec("\n".join(lines), names)
    assert torch.equal(weights_of(names["module" if kind == "lightning" else "model"]), weights)


def test_each_model_that_a_loop_kept_is_loaded_by_its_name(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    body, head = nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()])
    run.keep(body=body, head=head, optimizer=optimizer, schedule=torch.optim.lr_scheduler.StepLR(optimizer, 1))
    for _ in run.epochs(1):
        pass
    run.finish()
    *_, first, second = lines = lines_to_load(str(run.latest_checkpoint))
    assert (first, second) == (
        'kept.restore(body, saved["kept"]["body"])',
        'kept.restore(head, saved["kept"]["head"])',
    )
    new = {"body": nn.Linear(2, 2), "head": nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))}
    exec("\n".join(lines), {**new})
    assert torch.equal(weights_of(new["body"]), weights_of(body))
    assert torch.equal(weights_of(new["head"]), weights_of(head))


def test_what_a_program_wrote_is_named(tmp_path: Path) -> None:
    by_epochs = found("tests.trial.test_commands:by_epochs")
    run = JudgedRun(tmp_path)
    by_epochs(run)
    names: dict[str, Any] = {}
    exec("\n".join(lines_to_load(str(run.latest_checkpoint))), names)
    assert Path(names["saved"]).read_text() == "6\n"


def test_of_what_is_unknown_or_elsewhere_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_text("damaged")
    for checkpoint in (None, "s3://bucket/step-00000001.pt", str(tmp_path / "step-00000001.pt"), str(tmp_path)):
        assert lines_to_load(checkpoint) == []
