"""Weights & Biases: a run a trial, in a group of the sweep's name."""

from __future__ import annotations

import os
from collections.abc import Sequence

import wandb

from xaytune.trial.trackers.calling import check_server
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker


class Wandb(Tracker):
    """A run of W&B. ``WANDB_PROJECT``, ``WANDB_MODE`` and the like mean what they mean to W&B."""

    def begin(self, sweep: str) -> None:
        """Checks that runs can be sent to where they belong."""
        settings = wandb.Settings()
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
        if settings.mode not in ("offline", "disabled", "dryrun"):
            check_server(settings.base_url)

    def open(self, trial: TrackedTrial) -> None:
        """Begins a run, or continues it."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "xaytune"),
            group=trial.sweep,
            name=trial.name,
            id=trial.id,
            resume="allow",
            config=dict(trial.config),
            dir=str(trial.folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        for point in points:
            self._run.log(dict(point.metrics), step=point.global_step)

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run."""
        self._run.summary.update({"status": status, "reason": reason, "best": best})
        self._run.finish(exit_code=1 if status == "failed" else 0)
