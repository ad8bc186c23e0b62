"""A loop of one's own that is killed or paused anywhere goes on with the batches that it would have had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from xaytune.testing.training import JudgedRun
from xaytune.trainer.callbacks import Pause
from xaytune.trainer.own import OwnLoop

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X)
Note = Callable[[Any], None]
Program = Callable[[OwnLoop, Note], None]


class Killed(BaseException):
    """The process ends here."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled(generator: torch.Generator | None = None, size: int = 8) -> DataLoader[Any]:
    return DataLoader(DATA, size, shuffle=True, generator=generator)


def train_on(trial: OwnLoop, note: Note, loader: Iterable[Any], name: str = "") -> None:
    """Trains on what is left of a loader; only the batches matter."""
    for (batch,) in trial.steps(loader):
        note((name, batch.flatten().tolist()))
        trial.log(loss=1.0)


def trained(program: Program, trial: OwnLoop, killed_at: int | None = None) -> list[tuple[int, Any]]:
    """Runs a program, up to the body of a step; returns what it has noted, each with the steps before it."""
    torch.manual_seed(0)
    trial.keep(model=nn.Linear(1, 1))
    noted: list[tuple[int, Any]] = []

    def note(what: Any) -> None:
        if trial.state.global_step == killed_at:
            raise Killed
        noted.append((trial.state.global_step, what))

    try:
        program(trial, note)
    except (Killed, Pause):
        return noted
    trial.finish()
    return noted


def one_generator_for_two_loops(trial: OwnLoop, note: Note) -> None:
    generator = seeded(7)
    first, second = shuffled(generator), shuffled(generator)
    for _ in trial.epochs(3):
        train_on(trial, note, first, "first")
        train_on(trial, note, second, "second")


def a_loop_of_every_other_epoch(trial: OwnLoop, note: Note) -> None:
    always, sometimes = shuffled(seeded(1)), shuffled(seeded(2))
    for epoch in trial.epochs(4):
        if epoch % 2 == 0:
            train_on(trial, note, sometimes, "sometimes")
        train_on(trial, note, always, "always")


class Permuted:
    """Batches in an order that numpy draws."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        order = torch.from_numpy(self.rng.permutation(24))
        return ((X[order[at : at + 8]],) for at in (0, 8, 16))


def generators_of_two_kinds(trial: OwnLoop, note: Note) -> None:
    always, sometimes = Permuted(), shuffled(seeded(2))
    for epoch in trial.epochs(4):
        if epoch % 2 == 0:
            train_on(trial, note, sometimes, "sometimes")
        train_on(trial, note, always, "always")


def folds(trial: OwnLoop, note: Note, generator_of: Callable[[int], torch.Generator]) -> None:
    for fold in range(3):
        chosen = Subset(DATA, [at for at in range(24) if at % 3 != fold])
        loader = DataLoader(chosen, 8, shuffle=True, generator=generator_of(fold))
        trial.keep(model=nn.Linear(1, 1))
        for _ in trial.epochs(2):
            train_on(trial, note, loader, f"fold {fold}")


def folds_with_a_generator_each(trial: OwnLoop, note: Note) -> None:
    folds(trial, note, seeded)


def folds_with_one_generator(trial: OwnLoop, note: Note) -> None:
    generator = seeded(3)
    folds(trial, note, lambda fold: generator)


def steps_that_a_variable_holds(trial: OwnLoop, note: Note) -> None:
    loader = shuffled(size=4)
    for _ in trial.epochs(3):
        bar = trial.steps(loader)
        for (batch,) in bar:
            note(batch.flatten().tolist())
            trial.log(loss=1.0)
            if trial.state.step == 4:
                break


def noise_of_a_generator_that_is_kept(trial: OwnLoop, note: Note) -> None:
    noise, order = seeded(5), np.random.default_rng(6)
    trial.keep(noise=noise, order=order)
    for _ in trial.epochs(3):
        for _ in trial.steps(4):
            note((torch.rand(2, generator=noise).tolist(), order.random()))
            trial.log(loss=1.0)


@pytest.mark.parametrize(
    "program",
    [
        one_generator_for_two_loops,
        a_loop_of_every_other_epoch,
        generators_of_two_kinds,
        folds_with_a_generator_each,
        folds_with_one_generator,
        steps_that_a_variable_holds,
        noise_of_a_generator_that_is_kept,
    ],
)
def test_a_run_that_is_killed_before_any_step_goes_on_with_the_same_batches(
    program: Program, tmp_path: Path
) -> None:
    undisturbed = trained(program, OwnLoop(checkpoint_dir=tmp_path / "undisturbed", save_every_s=0))
    assert len(undisturbed) >= 12
    for step in range(1, len(undisturbed)):
        folder = tmp_path / str(step)
        trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0), killed_at=step)
        resumed = trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0))
        assert resumed == undisturbed[step:], f"killed at step {step}"


def test_folds_that_each_make_a_generator_with_the_same_seed_are_told_where_it_may_be_one_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        folds(trial, note, lambda fold: seeded(3))

    def killed(step: int) -> list[tuple[int, Any]]:
        folder = tmp_path / str(step)
        trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0), killed_at=step)
        return trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0))

    undisturbed = trained(program, OwnLoop(checkpoint_dir=tmp_path / "undisturbed", save_every_s=0))
    assert killed(5) == undisturbed[5:]  # within the second fold
    assert killed(6) == undisturbed[6:]  # where its second epoch begins
    assert killed(8) == undisturbed[8:]  # where the third begins: the second has shown that each makes its own
    assert not caplog.text
    killed(4)  # where the second begins, one generator for all would look the same
    assert "goes on from where one with the same seed was" in caplog.text


@pytest.mark.parametrize("change", [0, 1])
def test_a_generator_that_each_epoch_makes_is_left_as_it_is_made(change: int, tmp_path: Path) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        for epoch in trial.epochs(4):
            train_on(trial, note, shuffled(seeded(change * epoch)))

    undisturbed = trained(program, OwnLoop(checkpoint_dir=tmp_path / "undisturbed", save_every_s=0))
    for step in {*range(1, 12)} - {3}:  # after the first epoch nothing tells it from a generator for all of them
        folder = tmp_path / str(step)
        trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0), killed_at=step)
        resumed = trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0))
        assert resumed == undisturbed[step:], f"killed at step {step}"


class Augmented(Dataset[Any]):
    """Data that are changed at random as they are loaded."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor]:
        return (X[index] + torch.rand(1),)


class KeepsItsPlace:
    """A loader that knows its place itself, and is ahead by the batch that it has given."""

    def __init__(self) -> None:
        self._at, self._returned = 0, False

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        if not self._returned:
            self._at = 0
        self._returned = False
        while self._at < 6:
            self._at += 1
            yield (X[4 * self._at - 4 : 4 * self._at],)
        self._at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self._at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._at, self._returned = state["at"], True


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: shuffled(size=4),
    "with a generator": lambda: shuffled(seeded(1), size=4),
    "augmented": lambda: DataLoader(Augmented(), 4, shuffle=True),
    "keeps its place": KeepsItsPlace,
}


@pytest.mark.parametrize("step", [2, 6, 9], ids=["within an epoch", "at its end", "within the next"])
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_run_that_is_paused_at_the_top_of_a_step_trains_that_step_with_its_batch(
    make: Callable[[], Any], step: int, tmp_path: Path
) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        loader = make()
        for _ in trial.epochs(2):
            for (batch,) in trial.steps(loader):
                if trial.due:
                    trial.report(score=torch.rand(()))
                note(batch.flatten().tolist())
                trial.log(loss=1.0)

    times = [2, 6, 9]
    undisturbed = trained(program, JudgedRun(tmp_path / "undisturbed", by="global_step", times=times))
    paused = trained(program, JudgedRun(tmp_path / "s", by="global_step", times=times, pause_at=step))
    assert paused == undisturbed[:step]
    resumed = trained(program, JudgedRun(tmp_path / "s", by="global_step", times=[t for t in times if t != step]))
    assert resumed == undisturbed[step:]


def test_what_was_reported_before_a_run_was_killed_is_not_judged_again_at_a_later_step(tmp_path: Path) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        loader = shuffled()
        trial.report(score=0.0)  # a baseline
        for _ in trial.epochs(3):
            trial.report(score=0.5 + trial.state.global_step)
            train_on(trial, note, loader)
            trial.report(score=0.7 + trial.state.global_step)
            train_on(trial, note, loader)

    def judged(folder: str, killed_at: int | None = None) -> list[tuple[int, Any]]:
        run = OwnLoop(checkpoint_dir=tmp_path / folder, save_every_s=0)
        found: list[tuple[int, Any]] = []
        run.callbacks.on("eval_end")(lambda state: found.append((state.global_step, state.metrics["score"])))
        trained(program, run, killed_at)
        return found

    undisturbed = judged("undisturbed")
    assert undisturbed == [(0, 0.5), (3, 3.7), (6, 6.5), (9, 9.7), (12, 12.5), (15, 15.7)]
    for step in range(1, 18):
        before = judged(str(step), step)
        again = judged(str(step))  # what came after the last checkpoint is reported again
        assert before == undisturbed[: len(before)]
        assert again == undisturbed[len(undisturbed) - len(again) :], f"killed at step {step}"
        assert len(before) + len(again) >= len(undisturbed)


def test_what_is_reported_after_a_pause_at_the_top_of_an_epoch_counts_in_a_loop_that_the_trial_does_not_see(
    tmp_path: Path,
) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        for _ in trial.epochs(3):
            trial.report(score=0.5 + trial.state.global_step)
            for _ in range(2):
                note(torch.rand(()).item())
                trial.log(loss=1.0)
            trial.report(score=0.7 + trial.state.global_step)

    def judged(folder: str, pause_at: int | None = None) -> list[tuple[int, Any]]:
        run = JudgedRun(tmp_path / folder, by="global_step", pause_at=pause_at)
        found: list[tuple[int, Any]] = []
        run.callbacks.on("eval_end")(lambda state: found.append((state.global_step, state.metrics["score"])))
        trained(program, run)
        return found

    undisturbed = judged("undisturbed")
    assert judged("s", pause_at=2) == undisturbed[:2]
    again = judged("s")
    assert again == undisturbed[len(undisturbed) - len(again) :]
    assert len(again) >= len(undisturbed) - 2


def test_a_checkpoint_that_only_the_time_asks_for_loses_no_gradients_that_accumulate(tmp_path: Path) -> None:
    def program(trial: OwnLoop, note: Note) -> None:
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trial.keep(model=model, optimizer=optimizer)
        for _ in trial.epochs(2):
            for at, (batch,) in trial.steps(enumerate(shuffled(size=2))):
                note(None)
                model(batch).square().mean().backward()
                if at % 4 == 3:
                    optimizer.step()
                    optimizer.zero_grad()
                trial.log(loss=1.0)
        weights.append(model.weight.detach().clone())

    weights: list[Tensor] = []
    trained(program, OwnLoop(checkpoint_dir=tmp_path / "undisturbed", save_every_s=0))
    for batch in range(1, 24):
        folder = tmp_path / str(batch)
        trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0), killed_at=batch)
        trained(program, OwnLoop(checkpoint_dir=folder, save_every_s=0))
        assert torch.equal(weights[-1], weights[0]), f"killed at batch {batch}"
