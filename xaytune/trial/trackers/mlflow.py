"""MLflow: a run a trial, in an experiment of the sweep's name, at the tracking URI that MLflow is set to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from xaytune.trial.trackers.patience import check_server
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

__all__ = ["Mlflow"]

_ID = "xaytune.trial_id"
# What MLflow refuses in the name of a metric.
_REFUSED = re.compile(r"[^\w.\-/ ]")


def _experiment(sweep: str, client: MlflowClient) -> str:
    """Returns the id of the experiment of a sweep, which is made if there is none; so is MLflow's database.

    Raises:
        MlflowException: The tracking server cannot be reached, or refuses.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", sweep)
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known is not None else client.create_experiment(name))


class Mlflow(Tracker):
    """A run of MLflow. ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` mean what they mean to MLflow.

    Characters that it refuses in a metric's name become ``_``: ``recall@10`` is ``recall_10`` there.
    """

    def begin(self, sweep: str) -> None:
        """Makes the experiment: trials are not to race for it. A server must answer."""
        uri = mlflow.get_tracking_uri()
        if uri.startswith(("http://", "https://")):
            check_server(uri)
        _experiment(sweep, MlflowClient())

    def open(self, trial: TrackedTrial) -> None:
        """Begins a run, or continues it."""
        self._client = MlflowClient()
        experiment = _experiment(trial.sweep, self._client)
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

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        metrics = [
            Metric(_REFUSED.sub("_", name), value, int(point.time * 1000), point.global_step)
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
