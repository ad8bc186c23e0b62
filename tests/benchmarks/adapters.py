"""What a loop of one's own and the adapters cost a step: ``python -m tests.benchmarks.adapters [STEPS] [TURNS]``.

Each kind trains the same steps with and without, by turns in one process, each step about a millisecond long; the
medians of the turns' ratios are printed, of the process's own time: what else the machine does shall not count.
Two runs of a loop of one's own take turns every few steps, so that the machine's own changes of speed are in both.
Nothing is saved but at the end of a run.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers import logging as transformers_logging
from transformers.trainer_callback import PrinterCallback

from xaytune.integrations import lightning as with_lightning
from xaytune.integrations import transformers as with_transformers
from xaytune.trainer.own import OwnLoop

STEP_S = 1e-3
# Steps after which the two runs of a loop of one's own take turns.
BLOCK = 20
Run = Callable[[int, OwnLoop | None], float]


class Model(nn.Module):
    """A model whose step takes a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        begun = time.process_time()
        loss = self.layer(x).mean()
        while time.process_time() - begun < STEP_S:
            pass
        return {"loss": loss}


class Examples(Dataset[dict[str, Tensor]]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.ones(4), "labels": torch.ones(1)}


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.model(batch["x"])["loss"]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def own_loop(steps: int, trial: OwnLoop | None) -> Iterator[None]:
    """Trains, and yields at the end of each step."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    inputs = torch.ones(8, 4)
    if trial is not None:
        trial.keep(model=model, optimizer=optimizer)
    for _ in range(steps) if trial is None else trial.steps(steps):
        optimizer.zero_grad()
        loss = model(inputs)["loss"]
        loss.backward()
        optimizer.step()
        if trial is not None:
            trial.log(loss=loss)
        yield
    if trial is not None:
        trial.finish()


def lightning(steps: int, trial: OwnLoop | None) -> float:
    options: dict[str, Any] = {"enable_checkpointing": False}
    if trial is not None:
        options = {"callbacks": [with_lightning.XaytuneCallback(trial)]}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    batches = torch.utils.data.DataLoader(Examples(steps), 1)
    begun = time.process_time()
    trainer.fit(Module(), batches)
    return time.process_time() - begun


def transformers(steps: int, trial: OwnLoop | None) -> float:
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        log_level="error",
        logging_strategy="no",
    )
    callbacks: Any = None if trial is None else [with_transformers.XaytuneCallback(trial)]
    trainer = Trainer(Model(), arguments, train_dataset=Examples(steps), callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    begun = time.process_time()
    trainer.train()
    return time.process_time() - begun


def ratios(run: Run, steps: int, turns: int) -> Iterator[float]:
    run(max(steps // 10, 1), None)
    for turn in range(turns):
        times: dict[bool, float] = {}
        for adapted in (False, True) if turn % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                times[adapted] = run(steps, OwnLoop(checkpoint_dir=Path(folder)) if adapted else None)
        yield times[True] / times[False]


def own_loop_ratios(steps: int, turns: int) -> Iterator[float]:
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            loops = {trial: own_loop(steps, trial) for trial in (None, OwnLoop(checkpoint_dir=Path(folder)))}
            taken = dict.fromkeys(loops, 0.0)
            for block in range(steps // BLOCK + 1):  # the last one ends the run
                for trial in loops if block % 2 else reversed(loops):
                    begun = time.process_time()
                    for _ in itertools.islice(loops[trial], BLOCK):
                        pass
                    taken[trial] += time.process_time() - begun
        plain, adapted = taken.values()
        yield adapted / plain


def main() -> None:
    steps, turns = (int(argument) for argument in [*sys.argv[1:], "3000", "7"][:2])
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    kinds = {
        "own loop": own_loop_ratios(steps, turns),
        "lightning": ratios(lightning, steps, turns),
        "transformers": ratios(transformers, steps, turns),
    }
    for name, turn_ratios in kinds.items():
        found = sorted(turn_ratios)
        print(
            f"{name:13} {statistics.median(found) - 1:+.2%} of {steps} steps of {1e3 * STEP_S:g} ms"
            f" (turns from {found[0] - 1:+.2%} to {found[-1] - 1:+.2%})"
        )


if __name__ == "__main__":
    main()
