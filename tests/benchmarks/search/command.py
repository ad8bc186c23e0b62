"""``python -m tests.benchmarks search``: searches compared in virtual time.

``--data FOLDER`` compares them on known learning curves: YAHPO Gym's surrogate of LCBench, a folder with
``model.onnx`` and ``encoding.json``. ``--real FOLDER`` trains five small tasks, and keeps their curves there.
Every result is kept in a file at once, so that a run can be cut and continued; one that is kept is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.search.curves import FULL_TRAININGS, LCBENCH_OPEN, LcBench, Task, Trouble, method_seed
from tests.benchmarks.search.loop import play
from tests.benchmarks.search.methods import METHODS
from tests.benchmarks.search.results import OURS, Kept, Run, table
from xaytune.sweep.time_axis import levels_of

# What is compared where trainings are real: fifo and asha train the same configurations.
REAL_METHODS = (OURS, "asha", "fifo", "optuna tpe, pruner")


@dataclass(frozen=True)
class _Source:
    """Where learning curves come from, and what is compared on them where nothing else is asked for.

    Attributes:
        task: Makes the task of a name.
        tasks: Their names.
        max_t: Epochs of a full training.
        methods: Names of methods.
        seeds: How many.
        grace_period: When a method, by its name, may stop a trial first.
        trouble: What makes the curves harder to read.
    """

    task: Callable[[str], Task]
    tasks: Sequence[str]
    max_t: int
    methods: Sequence[str]
    seeds: int
    grace_period: Callable[[str], int]
    trouble: Trouble | None


def main(arguments: Sequence[str]) -> None:
    """Runs what is missing, and prints the table."""
    options = _parser().parse_args(arguments)
    source = _real(options.real, options.random) if options.real else _lcbench(options)
    runs, kept, budget = list(_runs(source, options)), Kept(options.results), FULL_TRAININGS * source.max_t
    for run in runs:
        if run not in kept:
            _play(run, source, kept)
    if options.real:
        for task in dict.fromkeys(run.task for run in runs):
            print(f"== {task}", *table([run for run in runs if run.task == task], kept, budget), sep="\n")
        print("== all")
    print(*table(runs, kept, budget), sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks search", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of YAHPO Gym's LCBench surrogate")
    source.add_argument("--real", type=Path, help="folder where the curves of what is trained are kept")
    parser.add_argument("--tasks", nargs="+", help="by default all of --real; of --data those to tune on")
    parser.add_argument("--limit-tasks", type=int, help="only the first so many of them")
    parser.add_argument("--seeds", type=int, help="by default 5 of --real, 2 of --data")
    parser.add_argument("--workers", type=int, nargs="+", default=[4], help="peers run with the first number")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="by default four of --real, or all")
    parser.add_argument(
        "--grace-period", type=int, help="by default 3 of --data; of --real what each has by default"
    )
    parser.add_argument("--noise", type=float, default=0.3, help="of --data: deviation of an accuracy, %%")
    parser.add_argument("--diverging", type=float, default=0.0, help="of --data: share that diverges")
    parser.add_argument("--random", type=int, default=100, help="of --real: trainings that regret is relative to")
    parser.add_argument("--share", type=float, default=1.0, help="share of the budget of 20 full trainings")
    parser.add_argument("--results", type=Path, default=Path("search-results.jsonl"), help="kept and continued")
    return parser


def _lcbench(options: argparse.Namespace) -> _Source:
    return _Source(
        task=lambda name: LcBench(options.data, name),
        tasks=LCBENCH_OPEN,
        max_t=LcBench.max_t,
        methods=list(METHODS),
        seeds=2,
        grace_period=lambda method: 3,
        trouble=Trouble(options.noise, options.diverging),
    )


def _real(folder: Path, random: int) -> _Source:
    import torch

    from tests.benchmarks.search.real import Real
    from tests.benchmarks.search.trainings import EPOCHS, RECIPES

    torch.set_num_threads(1)  # the batches are small
    return _Source(
        task=lambda name: Real(folder, name, random),
        tasks=list(RECIPES),
        max_t=EPOCHS,
        methods=REAL_METHODS,
        seeds=5,
        grace_period=lambda method: levels_of(None, EPOCHS)[0] if method == OURS else 1,
        trouble=None,
    )


def _runs(source: _Source, options: argparse.Namespace) -> Iterator[Run]:
    """Each task with one seed, then with the next: a run that is cut has something of all tasks."""
    trouble = source.trouble or Trouble()
    for seed in range(options.seeds or source.seeds):
        for task in (options.tasks or source.tasks)[: options.limit_tasks]:
            for method in options.methods or source.methods:
                for workers in options.workers if method == OURS else options.workers[:1]:
                    yield Run(
                        task=task,
                        seed=seed,
                        method=method,
                        workers=workers,
                        noise=trouble.noise,
                        diverging=trouble.diverging,
                        epochs=round(source.max_t * FULL_TRAININGS * options.share),
                        grace_period=options.grace_period or source.grace_period(method),
                    )


def _play(run: Run, source: _Source, kept: Kept) -> None:
    task = source.task(run.task)
    outcome = kept[run] = play(
        METHODS[run.method](task, method_seed(run.task, run.seed), run.grace_period),
        task,
        workers=run.workers,
        epochs=run.epochs,
        trouble=source.trouble,
        seed=run.seed,
    )
    print(
        f"{run.task} seed {run.seed} {run.method}, {run.workers} workers: {outcome.trace[-1][1]:.3f}", flush=True
    )
