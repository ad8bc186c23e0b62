"""Programs around Hugging Face's Trainer: judged by the values of their moment, and resumed whole."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from tests.integrations import transformers_recipes as recipes
from xaytune.integrations.transformers import XaytuneCallback
from xaytune.testing.training import JudgedRun, weights_of
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.checkpoint_files import step_of
from xaytune.trainer.own import OwnLoop

pytestmark = pytest.mark.slow


def trainer_of(
    run: OwnLoop, *others: TrainerCallback, kind: type[Trainer] = Trainer, last: bool = True, **options: Any
) -> Trainer:
    torch.manual_seed(0)
    data: dict[str, Any] = {"train_dataset": recipes.Texts(48), "eval_dataset": recipes.Texts(16)}
    data = {name: options.pop(name, value) for name, value in data.items()}
    mine = XaytuneCallback(run, save_every_s=0.0)
    optimizer = options.pop("optimizer", None)
    model = recipes.network()
    return kind(
        model,
        TrainingArguments(**{**recipes.DEFAULTS, **options}),
        callbacks=[*others, mine] if last else [mine, *others],
        optimizers=(None if optimizer is None else optimizer(model), None),
        **data,
    )


def _model(trainer: Trainer) -> nn.Module:
    assert isinstance(trainer.model, nn.Module)
    return trainer.model


class EvaluatesTraining(TrainerCallback):
    """The well-known callback that measures the loss of the training data at each epoch's end."""

    trainer: Trainer

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        copied = copy.deepcopy(control)
        self.trainer.evaluate(recipes.Texts(24), metric_key_prefix="train")
        return copied


def judged_by(run: JudgedRun, name: str) -> dict[int, float]:
    """Collects what the run tells of a metric when an epoch has ended."""
    told: dict[int, float] = {}

    @run.callbacks.on("epoch_end")
    def take(state: TrainState) -> None:
        told[state.global_step] = float(state.metrics.get(name, math.nan))

    return told


def measured(trainer: Trainer, name: str) -> dict[int, float]:
    return {int(row["step"]): row[name] for row in trainer.state.log_history if name in row}


@pytest.mark.parametrize("name", ["eval_a_loss", "eval_b_loss"])
def test_an_epoch_is_judged_by_all_data_sets_of_its_evaluation(tmp_path: Path, name: str) -> None:
    run = JudgedRun(tmp_path)
    told = judged_by(run, name)
    trainer = trainer_of(run, eval_dataset={"a": recipes.Texts(16), "b": recipes.Texts(24)})
    trainer.train()
    assert told == measured(trainer, name)
    assert len(told) == 4


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("save_strategy", ["no", "best"])
def test_an_evaluation_that_a_callback_asks_for_is_beside_the_trainers_own(
    tmp_path: Path, *, last: bool, save_strategy: str
) -> None:
    run = JudgedRun(tmp_path)
    told = judged_by(run, "eval_loss")
    evaluates = EvaluatesTraining()
    options: dict[str, Any] = {"metric_for_best_model": "eval_loss"} if save_strategy == "best" else {}
    trainer = trainer_of(run, evaluates, last=last, save_strategy=save_strategy, **options)
    evaluates.trainer = trainer
    trainer.train()
    truth = measured(trainer, "eval_loss")
    assert len(truth) == 4
    if save_strategy == "best" and not last:  # which data set is the last one is known after the first evaluation
        told, truth = ({step: one[step] for step in list(truth)[1:]} for one in (told, truth))
    assert told == truth


def test_a_run_that_another_callback_stops_is_saved_where_it_ends(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    stops = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=99.0)
    trainer = trainer_of(run, stops, metric_for_best_model="eval_loss", greater_is_better=False)
    trainer.train()
    assert trainer.state.global_step == 12
    newest = run.latest_checkpoint
    assert newest is not None
    assert newest.name == "step-00000012"


class Stream(IterableDataset[dict[str, Tensor]]):
    """Six batches, in which each token follows from the one before."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        data = recipes.Texts(48)
        return iter([data[at] for at in range(len(data))])


class Weighted(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return WeightedRandomSampler(list(range(1, 49)), 48)


class Shuffling(Trainer):
    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, 8, shuffle=True, collate_fn=self.data_collator)  # type: ignore[arg-type]


class ByLength(recipes.Texts):
    """Texts of several lengths."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self.tokens[index, : 4 + index % 4]
        return {"input_ids": tokens, "labels": tokens}


def test_an_evaluation_that_measures_more_now_and_then_is_the_same_evaluation(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    evaluations = 0

    class Measures(Trainer):
        def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
            nonlocal evaluations
            evaluations += 1
            output = super().evaluation_loop(*arguments, **options)
            if evaluations in (1, 3):
                assert output.metrics is not None
                output.metrics.update(eval_auc=0.5)
            return output

    trainer_of(run, kind=Measures).train()
    assert run.order().count("V") == run.order().count("v") == 4


def test_a_run_that_is_killed_in_two_attempts_draws_its_batches_as_one_that_is_not(tmp_path: Path) -> None:
    straight = trainer_of(JudgedRun(tmp_path / "straight"), kind=Weighted)
    straight.train()
    for step in (7, 10):
        run = JudgedRun(tmp_path / "run")
        latest: Any = run.latest_checkpoint
        with pytest.raises(Stops):
            trainer_of(run, StopsAt(step), kind=Weighted).train(resume_from_checkpoint=latest)
    run = JudgedRun(tmp_path / "run")
    latest = run.latest_checkpoint
    resumed = trainer_of(run, kind=Weighted)
    resumed.train(resume_from_checkpoint=latest)
    assert weights_of(_model(resumed)).equal(weights_of(_model(straight)))


class Stops(BaseException):
    """The process ends here."""


class StopsAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Stops


PROGRAMS: dict[str, dict[str, Any]] = {
    "a stream that is shorter than max_steps": {"train_dataset": Stream(), "max_steps": 20},
    "the same, with accumulation": {
        "train_dataset": Stream(),
        "max_steps": 10,
        "gradient_accumulation_steps": 2,
    },
    "a sampler that draws": {"kind": Weighted},
    "a loader of its own": {"kind": Shuffling},
    "batches by length": {"train_sampling_strategy": "group_by_length"},
    "rates by a plateau": {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "eval_loss"},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path, program: str) -> None:
    options = PROGRAMS[program]
    straight = trainer_of(JudgedRun(tmp_path / "straight"), **options)
    straight.train()
    for stopped_at in (9, 13):
        folder = tmp_path / str(stopped_at)
        if stopped_at < straight.state.global_step:
            with pytest.raises(Stops):
                trainer_of(JudgedRun(folder), StopsAt(stopped_at), **options).train()
        resumed_run = JudgedRun(folder)
        resumed = trainer_of(resumed_run, **options)
        latest: Any = resumed_run.latest_checkpoint
        resumed.train(resume_from_checkpoint=latest)
        assert resumed.state.global_step == straight.state.global_step
        assert weights_of(_model(resumed)).equal(weights_of(_model(straight)))


def hyperparameters_of(folder: Path, steps: int, **options: Any) -> list[list[float]]:
    """Trains, and returns the hyperparameters of each step."""
    run = JudgedRun(folder)
    found: list[list[float]] = []

    class Looks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            groups = optimizer.param_groups
            found.append([n for g in groups for n in (g["lr"], g["weight_decay"], g["eps"], *g["betas"])])

    trainer = trainer_of(run, Looks(), StopsAt(steps), max_steps=20, **options)
    latest: Any = run.latest_checkpoint
    with pytest.raises(Stops):
        trainer.train(resume_from_checkpoint=latest)
    return found


ONE: dict[str, Any] = {"learning_rate": 1e-2, "weight_decay": 0.1, "adam_beta1": 0.8}
CHANGED: list[dict[str, Any]] = [
    {"learning_rate": 3e-3},
    {"weight_decay": 0.0},
    {"adam_beta1": 0.5, "adam_epsilon": 1e-6},
    {"lr_scheduler_type": "cosine", "warmup_steps": 4},
    {"optimizer": lambda model: torch.optim.AdamW(model.parameters(), lr=2e-3, eps=1e-6)},
    {},
]


@pytest.mark.parametrize("changed", CHANGED)
def test_a_run_that_goes_on_from_another_configuration_trains_with_its_own_arguments(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    before: dict[str, Any] = dict(ONE)
    if "optimizer" in changed:
        before["optimizer"] = lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2)
    hyperparameters_of(tmp_path / "one", 9, **before)
    resumed = hyperparameters_of(tmp_path / "one", 14, **{**before, **changed})
    expected = hyperparameters_of(tmp_path / "other", 14, **{**before, **changed})
    assert len(resumed) == 6
    for mine, other in zip(resumed, expected[-6:], strict=True):
        assert mine == pytest.approx(other)


def test_a_run_that_resumes_only_to_end_begins_no_epoch(tmp_path: Path) -> None:
    with pytest.raises(Stops):
        trainer_of(JudgedRun(tmp_path / "run"), StopsAt(7)).train()
    run = JudgedRun(tmp_path / "run", stop_at=0)
    latest: Any = run.latest_checkpoint
    trainer_of(run).train(resume_from_checkpoint=latest)
    assert step_of(latest) == 6  # an epoch
    assert [event for event in run.events if event.startswith(("epoch", "step"))] == []
    assert run.events[-1] == "train_end"


def test_a_run_that_takes_over_another_loads_the_best_of_its_own(tmp_path: Path) -> None:
    options: dict[str, Any] = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    options |= {"save_strategy": "epoch", "save_total_limit": 10}
    donor = JudgedRun(tmp_path / "run")
    with pytest.raises(Stops):
        trainer_of(donor, StopsAt(9), learning_rate=1e-2, **options).train()
    run = JudgedRun(tmp_path / "run")
    latest: Any = run.latest_checkpoint
    taken_over_at = run.taken_over_at = step_of(latest)
    takes_over = trainer_of(run, learning_rate=1.0, **options)  # which makes it worse
    takes_over.train(resume_from_checkpoint=latest)
    values = measured(takes_over, "eval_loss")
    own = [value for step, value in values.items() if step > taken_over_at]
    theirs = [value for step, value in values.items() if step <= taken_over_at]
    assert takes_over.state.best_metric == min(own) > min(theirs)
    assert takes_over.evaluate()["eval_loss"] == pytest.approx(takes_over.state.best_metric)


def test_a_user_of_transformers_who_looks_at_the_log_is_told_nothing_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer_of(JudgedRun(tmp_path)).train()
    assert caplog.text == ""


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(
    "evaluated", [{"eval_strategy": "epoch"}, {"eval_strategy": "steps", "eval_steps": 4}], ids=["epochs", "steps"]
)
def test_evaluations_that_only_the_trial_needs_change_nothing(
    evaluated: dict[str, Any], schedule: str, tmp_path: Path
) -> None:
    def trained(run: OwnLoop) -> list[float]:
        options = {"factor": 0.5, "patience": 0}
        if schedule == "reduce_lr_on_plateau":
            options |= {"threshold": 0.5}
        trainer = trainer_of(
            run, lr_scheduler_type=schedule, lr_scheduler_kwargs=options, logging_steps=1, **evaluated
        )
        trainer.train()
        assert "step" not in vars(trainer.lr_scheduler)
        rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
        assert len(set(rates)) > 1
        return rates + weights_of(_model(trainer)).tolist()

    alone = trained(OwnLoop())
    for by, times in (("epoch", (1, 2, 3)), ("global_step", (2, 3, 4, 6, 9, 12, 17))):
        run = JudgedRun(tmp_path / by, by=by, times=times)
        assert trained(run) == alone
        assert run.judged == list(times)
