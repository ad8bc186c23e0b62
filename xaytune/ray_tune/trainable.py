"""The Ray side of a trial: an actor that Tune drives, reused for trial after trial."""

from __future__ import annotations

import dataclasses
import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune

from xaytune.errors import Problem, SpecError
from xaytune.ray_tune.shared_storage import not_shared
from xaytune.trial.messages import Report, StopRequest, Task
from xaytune.trial.recipe import check_references, use_import_paths

__all__ = ["TrialActor", "trainable_for"]

# An actor is given this long to unwind a recipe that is done with, before it is given up.
_JOIN_S = 5.0
# Threads that a trial leaves are given this long to end before its process is given up.
_THREADS_S = 1.0


class TrialActor(tune.Trainable):
    """Runs one trial at a time. `step` returns when the trial has something to say."""

    task: Task

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Recipes find their files where they find them without Ray: Tune is not to change the folder.
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        super().__init__(*args, **kwargs)

    def setup(self, config: dict[str, Any]) -> None:
        """Prepares the process for its first trial: modules are imported and checked here, not by the driver."""
        from xaytune.trainer.random_state import seed_everything
        from xaytune.trial.hygiene import Baseline
        from xaytune.trial.trackers.tracking import prepare

        if self.task.remote is not None:
            # Nothing of the sweep is kept on this node.
            self._scratch = tempfile.TemporaryDirectory(prefix="xaytune-trial-")
            self.task = dataclasses.replace(self.task, sweep_dir=self._scratch.name)
        use_import_paths(self.task.import_paths)
        _limit_threads(self.task.cpus)
        # A module may draw its data when it is imported: it is to be the same for all trials.
        seed_everything(self.task.seed)
        self._problems: list[Problem] = []
        try:
            if not Path(self.task.sweep_dir).is_dir():
                raise SpecError([not_shared(self.task.sweep_dir, ray.util.get_node_ip_address())])
            check_references(self.task.recipe, self.task.callbacks, self.task.trackers)
            prepare(self.task.trackers, self.task.tracker_settings)
        except SpecError as error:
            self._problems = error.problems
        self._baseline = Baseline()
        self._introduced = False
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Starts the next trial in this process."""
        self.cleanup()
        if self._run.thread.is_alive():
            os._exit(1)  # it swallowed its pause, and would go on beside the next trial
        self._baseline.restore()
        self._begin(new_config)
        if not self._problems:
            self._run.start()
        return True

    def step(self) -> dict[str, Any]:
        """Waits for the trial's next report."""
        report = self._next_report()
        report.node, report.pid = ray.util.get_node_ip_address(), os.getpid()
        report.node_id = ray.get_runtime_context().get_node_id()
        return {"report": report, "done": report.kind == "end"}

    def _next_report(self) -> Report:
        if self._problems:
            return Report("end", status="failed", reason=str(self._problems[0]), problems=self._problems)
        # The first not before: Tune may drop an actor that it has just made, and give its trial to another.
        if not self._run.started:
            self._run.start()
        if not self._introduced:
            self._introduced = True
            return Report("start")
        report = self._run.next_report(self.task.heartbeat_s)
        if report.kind == "end":
            report.clean = self._baseline.has_no_other_threads(self._run.thread, _THREADS_S)
        return report

    def request_stop(self, request: StopRequest) -> None:
        """Asks the trial to end through its own loop."""
        self._run.request_stop(request)

    def cleanup(self) -> None:
        """Waits for a recipe that is ending, or paused."""
        self._run.pause()
        self._run.join(_JOIN_S)

    def _begin(self, config: dict[str, Any]) -> None:
        # Tune would send it back with every result.
        self.config = {}
        # Here, for the driver makes this class too: torch is to be imported by trials alone.
        from xaytune.trial.runner import ThreadedRun

        _free_accelerator()
        self._run = ThreadedRun(self.task, config["assignment"])


def trainable_for(task: Task) -> type[TrialActor]:
    """Returns the trainable of a sweep."""
    return type("Trial", (TrialActor,), {"task": task})


def _free_accelerator() -> None:
    """Gives back what the trial before kept on the device: models in reference cycles wait for the collector."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _limit_threads(cpus: float) -> None:
    import torch

    torch.set_num_threads(max(1, int(cpus)))
