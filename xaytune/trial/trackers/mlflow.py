"""MLflow: a run a trial, in an experiment of the sweep's name, at the tracking URI that MLflow is set to."""

from __future__ import annotations

import os
import posixpath
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from xaytune.trial.trackers.calling import check_server
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

_ID = "xaytune.trial_id"
_STATUS, _REASON, _BEST, _CONFIG = "xaytune.status", "xaytune.reason", "xaytune.best", "xaytune.config."
# What MLflow refuses in the name of a metric or a parameter.
_REFUSED = re.compile(r"[^\w.\-/ :]")


def _experiment(sweep: str, client: MlflowClient) -> str:
    """Returns the id of the experiment of a sweep, which is made if there is none; so is MLflow's database.

    Raises:
        MlflowException: The tracking server cannot be reached, or refuses.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", sweep)
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known is not None else client.create_experiment(name))


class _Names:
    """Names as MLflow takes them, each for one name of ours."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def of(self, names: Iterable[str]) -> Mapping[str, str]:
        """Returns what names are called; of two that would be called alike one is what it is."""
        new = sorted(set(names) - self._given.keys(), key=lambda name: (_taken(name) != name, name))
        for name in new:
            wanted = _taken(name)
            is_free = wanted not in self._given.values()
            self._given[name] = wanted if is_free else f"{wanted}_{zlib.crc32(name.encode()):08x}"
        return self._given


def _taken(name: str) -> str:
    """Returns the nearest name that MLflow takes."""
    return posixpath.normpath(_REFUSED.sub("_", name)).lstrip("./") or "_"


class Mlflow(Tracker):
    """A run of MLflow. ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` mean what they mean to MLflow.

    Characters that it refuses in a name become ``_``: ``recall@10`` is ``recall_10`` there. A parameter cannot
    change: where a trial has taken over another, its new values are tags, ``xaytune.config.lr``.
    """

    def begin(self, sweep: str) -> None:
        """Makes the experiment: trials are not to race for it. A server must answer."""
        uri = mlflow.get_tracking_uri()
        if uri.startswith(("http://", "https://")):
            check_server(uri)
        _experiment(sweep, MlflowClient())

    def open(self, trial: TrackedTrial) -> None:
        """Begins a run, or continues it."""
        self._client, self._names = MlflowClient(), _Names()
        names = _Names().of(trial.config)
        config = {names[name]: str(value)[:MAX_PARAM_VAL_LENGTH] for name, value in trial.config.items()}
        experiment = _experiment(trial.sweep, self._client)
        found: list[Run] = []
        if trial.attempt > 0:
            found = self._client.search_runs([experiment], f"tags.`{_ID}` = '{trial.id}'")
        if found:
            self._continue(found[0], config)
            return
        tags = {"xaytune.sweep": trial.sweep, "xaytune.trial": str(trial.number), _ID: trial.id}
        self._run = self._client.create_run(experiment, tags=tags, run_name=trial.name).info.run_id
        params = [Param(name, value) for name, value in config.items()]
        for begin in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self._run, params=params[begin : begin + MAX_PARAMS_TAGS_PER_BATCH])

    def _continue(self, run: Run, config: Mapping[str, str]) -> None:
        self._run, before = run.info.run_id, run.data
        self._client.update_run(self._run, status="RUNNING")
        for tag in {_STATUS, _REASON} & before.tags.keys():  # of the attempt before
            self._client.delete_tag(self._run, tag)
        changed = [n for n, v in config.items() if before.tags.get(_CONFIG + n, before.params.get(n)) != v]
        if changed:
            self._client.log_batch(self._run, tags=[RunTag(_CONFIG + name, config[name]) for name in changed])

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        names = self._names.of(name for point in points for name in point.metrics)
        metrics = [
            Metric(names[name], value, int(point.time * 1000), point.global_step)
            for point in points
            for name, value in point.metrics.items()
        ]
        for begin in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + MAX_METRICS_PER_BATCH])

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run."""
        tags = [RunTag(_STATUS, status)]
        if reason is not None:
            tags.append(RunTag(_REASON, reason))
        if best is not None:
            tags.append(RunTag(_BEST, repr(best)))
        self._client.log_batch(self._run, tags=tags)
        known = {"failed": "FAILED", "paused": "KILLED"}
        self._client.set_terminated(self._run, known.get(status, "FINISHED"))
