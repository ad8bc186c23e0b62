from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from tests.models import CLASSES, FEATURES, dataset, loader, make_trainer, weights
from xaytune.trainer.callbacks import TrainState


def linear() -> nn.Module:
    return nn.Linear(FEATURES, CLASSES)


def test_it_learns_and_measures_loss_and_accuracy() -> None:
    trainer = make_trainer(num_epochs=30, eval_loader=loader(48))
    metrics = trainer.fit().metrics
    assert metrics["eval_accuracy"] > 0.9
    assert metrics["eval_loss"] < 0.5
    assert {"loss", "learning_rate", "grad_norm"} <= metrics.keys()


def test_its_evaluation_equals_one_over_all_examples_at_once() -> None:
    trainer = make_trainer(num_epochs=1, eval_loader=loader(batch_size=7))
    metrics = trainer.fit().metrics
    trainer.model.eval()
    inputs, targets = dataset().tensors
    outputs = trainer.model(inputs)
    assert metrics["eval_loss"] == pytest.approx(F.cross_entropy(outputs, targets).item(), rel=1e-5)
    assert metrics["eval_accuracy"] == (outputs.argmax(1) == targets).double().mean().item()


def test_metrics_of_a_step_stay_tensors_until_they_are_read() -> None:
    trainer = make_trainer(num_epochs=1)
    kinds = []
    trainer.callbacks.on("step_end")(lambda state: kinds.append(type(state.metrics["loss"])))
    trainer.fit()
    assert set(kinds) == {Tensor}


def test_gradients_are_there_for_handlers_of_step_end() -> None:
    trainer = make_trainer(num_epochs=1)
    norms: list[tuple[float, float]] = []

    @trainer.callbacks.on("step_end")
    def measure(state: TrainState) -> None:
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        own = torch.cat([g.flatten() for g in gradients]).norm()
        norms.append((float(own), float(state.metrics["grad_norm"])))

    trainer.fit()
    assert len(norms) == 6
    assert all(own == pytest.approx(reported, rel=1e-5) for own, reported in norms)


def test_accumulation_gives_the_weights_of_the_large_batch() -> None:
    torch.manual_seed(1)
    start = linear().state_dict()
    results = []
    for batch_size, accumulate in ((8, 2), (16, 1)):
        model = linear()
        model.load_state_dict(start)
        trainer = make_trainer(model=model, train_loader=loader(batch_size, shuffle=False), accumulate=accumulate)
        assert trainer.fit().global_step == 9
        results.append(weights(trainer))
    assert torch.allclose(results[0], results[1], atol=1e-6)


def test_clipping_bounds_the_gradients_and_reports_their_norm_before() -> None:
    trainer = make_trainer(clip_grad_norm=0.01, num_epochs=1)
    clipped: list[float] = []

    @trainer.callbacks.on("step_end")
    def measure(state: TrainState) -> None:
        gradients = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        clipped.append(float(torch.cat(gradients).norm()))

    metrics = trainer.fit().metrics
    assert max(clipped) <= 0.0101
    assert metrics["grad_norm"] > 0.01


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 3), ("step", 18)])
def test_a_learning_rate_scheduler_steps_by_epoch_or_by_step(interval: Any, steps: int) -> None:
    trainer = make_trainer(schedule=lambda optimizer: ExponentialLR(optimizer, gamma=0.9), lr_interval=interval)
    trainer.fit()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**steps)


def test_reduce_on_plateau_watches_the_evaluation() -> None:
    def rate(lr: float) -> float:
        trainer = make_trainer(
            lr=lr,
            schedule=lambda optimizer: ReduceLROnPlateau(
                optimizer, factor=0.5, patience=0, threshold=0.0, eps=0.0
            ),
            eval_loader=loader(shuffle=False),
            num_epochs=4,
        )
        trainer.fit()
        return float(trainer.optimizer.param_groups[0]["lr"]) / lr

    assert rate(0.05) == 1  # it improves after every epoch
    assert rate(1e-30) == 0.125  # it never does: halved after each epoch but the first


def test_evaluation_every_n_steps() -> None:
    trainer = make_trainer(eval_loader=loader(), eval_every=4)
    steps: list[int] = []
    trainer.callbacks.on("eval_end")(lambda state: steps.append(state.global_step))
    trainer.fit()
    assert steps == [4, 8, 12, 16, 18]  # the last at the end of the run


def test_a_users_eval_fn_gets_the_model_in_eval_mode_without_gradients() -> None:
    def evaluate(model: nn.Module, batches: Any) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"examples": float(sum(len(inputs) for inputs, _ in batches))}

    trainer = make_trainer(eval_loader=loader(), eval_fn=evaluate, num_epochs=1)
    assert trainer.fit().metrics["examples"] == 48
    assert trainer.model.training


def test_a_training_step_of_the_users_own() -> None:
    def training_step(model: nn.Module, batch: Any) -> dict[str, Any]:
        inputs, targets = batch
        outputs = model(inputs)
        return {"loss": F.cross_entropy(outputs, targets), "confidence": outputs.softmax(1).max(1).values.mean()}

    metrics = make_trainer(loss_fn=None, training_step=training_step, eval_loader=loader()).fit().metrics
    assert 0 < metrics["confidence"] <= 1
    assert metrics["eval_loss"] > 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_metric_that_is_no_number_is_kept_as_it_was_last(accumulate: int) -> None:
    def training_step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": F.cross_entropy(model(batch[0]), batch[1]), "nothing": None, "text": "a"}

    metrics = make_trainer(loss_fn=None, training_step=training_step, accumulate=accumulate).fit().metrics
    assert (metrics["nothing"], metrics["text"]) == (None, "a")


def test_a_metric_that_becomes_a_number_within_a_step_of_several_batches_is_one_from_there() -> None:
    seen = itertools.count()

    def training_step(model: nn.Module, batch: Any) -> dict[str, Any]:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return {"loss": loss, "late": None if next(seen) % 2 == 0 else 3.0}

    metrics = make_trainer(loss_fn=None, training_step=training_step, accumulate=2).fit().metrics
    assert metrics["late"] == 3.0


class Keyworded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:
        scores = self.layer(inputs)
        return scores if labels is None else {"loss": F.cross_entropy(scores, labels), "scores": scores}


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, None])
def test_dict_batches_are_keyword_arguments_with_labels_as_the_target(loss_fn: Any) -> None:
    batches = [{"inputs": inputs, "labels": labels} for inputs, labels in loader()]
    trainer = make_trainer(model=Keyworded(), loss_fn=loss_fn, train_loader=batches, eval_loader=batches)
    metrics = trainer.fit().metrics
    assert metrics["eval_loss"] < 1.2
    assert ("eval_accuracy" in metrics) == (loss_fn is not None)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_under_autocast(precision: Any) -> None:
    dtypes = set()

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        dtypes.add(outputs.dtype)
        return F.cross_entropy(outputs.float(), targets)

    trainer = make_trainer(precision=precision, loss_fn=loss_fn, num_epochs=10, eval_loader=loader())
    metrics = trainer.fit().metrics
    assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert metrics["eval_accuracy"] > 0.7
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_weights() -> None:
    model = linear()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options: dict[str, Any] = {"train_loader": loader(shuffle=False), "num_epochs": 1}
    plain = make_trainer(model=model, **options)
    plain.fit()
    model = linear()
    model.load_state_dict(start)
    compiled = make_trainer(model=model, compile=True, **options)
    compiled.fit()
    assert torch.allclose(weights(plain), weights(compiled), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs must be a whole number of at least 1"),
        ({"num_epochs": 2.5}, "num_epochs must be a whole number of at least 1"),
        ({"num_epochs": True}, "num_epochs must be a whole number of at least 1"),
        ({"max_steps": 0}, "max_steps must be -1 or a whole number of at least 1"),
        ({"max_steps": 3.5}, "max_steps must be -1 or a whole number of at least 1"),
        ({"accumulate": 0}, "accumulate must be a whole number of at least 1"),
        ({"accumulate": 2.0}, "accumulate must be a whole number of at least 1"),
        ({"checkpoint_dir": __file__}, "checkpoint_dir must be a folder"),
        ({"eval_every": "step"}, "eval_every must be 'epoch' or a number of steps"),
        ({"lr_interval": "batch"}, "lr_interval must be 'epoch' or 'step'"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm must be above 0"),
        ({"precision": "fp8"}, "precision must be 'fp32', 'bf16' or 'fp16'"),
        ({"eval_fn": lambda model, batches: {}}, "eval_fn needs an eval_loader"),
        ({"run": "freeze", "trial": object()}, "first phase, is trained by a Trainer that is not given the trial"),
    ],
)
def test_an_option_out_of_range_is_refused_with_what_it_got(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_a_loader_that_runs_dry_is_named() -> None:
    with pytest.raises(ValueError, match="train_loader yielded no batch"):
        make_trainer(train_loader=iter(loader())).fit()


def test_a_batch_of_no_known_form_is_described() -> None:
    with pytest.raises(TypeError, match=r"a batch must be .*got a Tensor"):
        make_trainer(train_loader=[torch.ones(2)]).fit()


@pytest.mark.slow
def test_it_works_without_ray() -> None:
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from tests.models import make_trainer\n"
        "print(make_trainer().fit().global_step)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "18"


def test_the_state_of_a_run_that_fit_is_called_again_for_goes_on() -> None:
    straight, again = make_trainer(), make_trainer()
    straight.fit()
    again = make_trainer()
    again.callbacks.on("step_end")(lambda state: state.global_step in (2, 6, 9) and state.stop_training())
    assert [again.fit().global_step for _ in range(4)] == [2, 6, 9, 18]
    assert torch.equal(weights(again), weights(straight))


def test_max_steps_alone_trains_so_many_steps() -> None:
    state: TrainState = make_trainer(num_epochs=None, max_steps=20).fit()
    assert (state.global_step, state.epoch, state.num_epochs) == (20, 3, 0)
