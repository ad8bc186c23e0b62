"""MLflow: a run a trial, in an experiment of the sweep's name, at the tracking URI that MLflow is set to."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from xaytune.tuning.trackers.tracker import Point, TrackedTrial

__all__ = ["Mlflow"]

_ID = "xaytune.trial_id"


class Mlflow:
    """A run of MLflow. ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` mean what they mean to MLflow.

    Args:
        trial: The trial.
    """

    def __init__(self, trial: TrackedTrial) -> None:
        self._client = MlflowClient()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", trial.sweep))
        found: list[Run] = []
        if trial.attempt > 0:
            found = self._client.search_runs([experiment], f"tags.`{_ID}` = '{trial.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"xaytune.sweep": trial.sweep, "xaytune.trial": str(trial.number), _ID: trial.id}
        self._run = self._client.create_run(experiment, tags=tags, run_name=trial.name).info.run_id
        params = [Param(name, str(value)[:MAX_PARAM_VAL_LENGTH]) for name, value in trial.config.items()]
        for begin in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self._run, params=params[begin : begin + MAX_PARAMS_TAGS_PER_BATCH])

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another trial was quicker
            made = self._client.get_experiment_by_name(name)
            if made is None:
                raise
            return str(made.experiment_id)

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        metrics = [
            Metric(name, value, int(point.time * 1000), point.global_step)
            for point in points
            for name, value in point.metrics.items()
        ]
        for begin in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + MAX_METRICS_PER_BATCH])

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run."""
        tags = [RunTag("xaytune.status", status)]
        if reason is not None:
            tags.append(RunTag("xaytune.reason", reason))
        if best is not None:
            tags.append(RunTag("xaytune.best", repr(best)))
        self._client.log_batch(self._run, tags=tags)
        known = {"failed": "FAILED", "paused": "KILLED"}
        self._client.set_terminated(self._run, known.get(status, "FINISHED"))
