"""The same workload in Ray Tune and in Optuna, each as its own documentation has it."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import workload

Configure = Callable[[int], dict[str, Any]]


def ray_tune(
    trials: int,
    folder: Path,
    *,
    reuse_actors: bool,
    every_step: bool,
    configuration: Configure = workload.configuration,
) -> None:
    """A function trainable under ASHA, with Ray's defaults."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    compute_log = str(folder / "compute")

    def trainable(config: dict[str, Any]) -> None:
        latest = {"accuracy": 0.0, "epochs": 0}

        def on_step(metrics: dict[str, Any]) -> None:
            if every_step:
                tune.report({**metrics, **latest})

        def on_epoch(accuracy: float) -> bool:
            latest.update(accuracy=accuracy, epochs=latest["epochs"] + 1)
            tune.report(dict(latest))
            return False

        workload.train(configuration(config["number"]), on_step, on_epoch, compute_log)

    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            scheduler=ASHAScheduler(
                time_attr="epochs", max_t=workload.MAX_EPOCHS, grace_period=1, reduction_factor=3
            ),
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name="ray", verbose=0),
    ).fit()


def ray_report_rate(steps: int, folder: Path) -> float:
    """Steps a second of an empty loop that calls `tune.report` with four metrics every step."""
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        began = time.perf_counter()
        for step in range(1, steps + 1):
            tune.report({"loss": 1.0 / step, "lr": 0.1, "grad_norm": 2.0, "tokens": step * 64.0})
        tune.report({"rate": steps / (time.perf_counter() - began)})

    results = tune.Tuner(
        trainable, run_config=tune.RunConfig(storage_path=str(folder), name="rate", verbose=0)
    ).fit()
    return float((results[0].metrics or {})["rate"])


def optuna(
    trials: int, folder: Path, processes: int = 2, configuration: Configure = workload.configuration
) -> None:
    """Processes on a journal file under successive halving, a report every epoch."""
    context = multiprocessing.get_context("spawn")
    arguments = (trials, str(folder), configuration)
    workers = [context.Process(target=_optuna_worker, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _optuna_worker(trials: int, folder: str, configuration: Configure) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import MaxTrialsCallback

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        latest = {"accuracy": 0.0, "epochs": 0}

        def on_epoch(accuracy: float) -> bool:
            latest.update(accuracy=accuracy, epochs=latest["epochs"] + 1)
            trial.report(accuracy, int(latest["epochs"]))
            if trial.should_prune():
                raise optuna.TrialPruned
            return False

        workload.train(configuration(trial.number), lambda metrics: None, on_epoch, f"{folder}/compute")
        return float(latest["accuracy"])

    study = optuna.create_study(
        study_name="digits",
        storage=JournalStorage(JournalFileBackend(f"{folder}/optuna.log")),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        direction="maximize",
        load_if_exists=True,
    )
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    study.optimize(objective, callbacks=[MaxTrialsCallback(trials, states=states)])


def main(kind: str, trials: int, folder: str) -> None:
    """Runs one peer in this process: what the whole-command timings start."""
    one_shape = workload.of_one_shape
    if kind == "optuna":
        optuna(trials, Path(folder))
    elif kind.startswith("optuna_of_one_shape_"):
        optuna(trials, Path(folder), int(kind.rpartition("_")[2]), one_shape)
    elif kind == "ray_of_one_shape":
        ray_tune(trials, Path(folder), reuse_actors=True, every_step=False, configuration=one_shape)
    else:
        ray_tune(
            trials, Path(folder), reuse_actors=kind != "ray_default", every_step=kind == "ray_reuse_every_step"
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
