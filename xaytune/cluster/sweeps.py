"""Sweeps on a cluster: each runs as a job there, whose output carries the events of its journal."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ray.job_submission import JobDetails, JobErrorType, JobStatus

from xaytune.cluster.connection import Connection
from xaytune.cluster.package import EXCLUDED, check_size
from xaytune.errors import ClusterError
from xaytune.records.journal import Event
from xaytune.records.remote import child_uri, without_options, without_secrets
from xaytune.records.state import SweepState
from xaytune.records.stream import event_in
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.trackers.tracking import settings

# What the jobs of sweeps are told from others by, and what is noted of them.
_NAME, _STORAGE = "xaytune.sweep", "xaytune.storage"
# Beyond the seconds that its trials have to end, those a stopped sweep has to record it.
_RECORD_S = 30
# In place of an infinite number of seconds, which Ray does not take.
_FOR_EVER_S = 1e9
# Seconds after its start in which a cluster is to be ready for jobs.
_READY_S = 60.0
_AGAIN_S = 0.5
# What Ray puts before the output of a job.
_RAYS_OWN = ("Runtime env is setting up.", "Running entrypoint for job ")
# The option by which a raylet is told how to start its workers.
_WORKERS = "--python_worker_command="


class ClusterSweep:
    """A sweep on a cluster: the job that ran it last.

    Attributes:
        job: The job's id.
        storage: Folder of sweeps on the cluster.
        asked: The name that the sweep was asked to have; it may have got a number.

    Args:
        connection: To the cluster.
        job: The job's id.
        metadata: What was noted of it.
    """

    def __init__(self, connection: Connection, job: str, metadata: Mapping[str, str]) -> None:
        self.connection, self.job = connection, job
        self.storage = metadata[_STORAGE]
        self.asked = metadata[_NAME]

    def details(self) -> JobDetails:
        """Returns how the job is, within seconds.

        Raises:
            ClusterError: The cluster does not answer.
        """
        return JobDetails(**self.connection.get(f"/api/jobs/{self.job}"))

    def output(self) -> str:
        """Returns all that the job printed."""
        with _asking(self.connection):
            return self.connection.jobs.get_job_logs(self.job)

    def printed(self) -> list[str]:
        """Returns what the job printed beside its events."""
        return [line for line in self.output().split("\n") if line and is_printed(line)]

    def why_not_begun(self, details: JobDetails) -> str:
        """Says why the sweep has not begun."""
        if details.status == JobStatus.STOPPED:
            return f"{self.asked} was stopped before it began"
        if details.status != JobStatus.FAILED:
            return f"{self.asked} has not begun yet: its job is {details.status.value.lower()}"
        if details.error_type == JobErrorType.RUNTIME_ENV_SETUP_FAILURE:
            told = [line.strip() for line in (details.message or "").splitlines() if "ERROR: " in line]
            return f"{self.asked}: its requirements cannot be installed: {'; '.join(told) or details.message}"
        return f"{self.asked} did not begin: {' '.join(self.printed()[-1:]) or details.message}"

    def state(self, details: JobDetails | None = None) -> SweepState | None:
        """Returns the state of the sweep, as far as the job's output tells it; None if it has not begun.

        Args:
            details: How the job is, where that is known.
        """
        ended = (details or self.details()).status.is_terminal()
        state: SweepState | None = None
        for event in filter(None, map(event_in, self.output().split("\n"))):
            state = self.apply(event, state)
        if ended and state is not None:
            state.driver_gone()
        return state

    def apply(self, event: Event, state: SweepState | None) -> SweepState:
        """Returns the state after an event; None is that before the first, which tells the sweep's name."""
        if state is None:
            folder = child_uri(self.storage, event["name"])  # of a path it is the same
            return SweepState(without_options(folder), [event], without_secrets(folder))
        state.apply(event)
        return state

    def stop(self) -> None:
        """Asks the sweep to end: its trials save and end through their loops."""
        with _asking(self.connection):
            self.connection.jobs.stop_job(self.job)


def is_printed(line: str) -> bool:
    """Whether a line of a job's output is neither an event nor Ray's own."""
    return event_in(line) is None and not any(words in line for words in _RAYS_OWN)


def submit(
    connection: Connection, command: Sequence[str], name: str, storage: str, spec: SweepSpec | None
) -> ClusterSweep:
    """Starts a command of xaytune that runs a sweep as a job on a cluster, with the working directory shipped.

    Args:
        connection: To the cluster.
        command: What follows ``xaytune``.
        name: The sweep's name, or the one that it is asked to have.
        storage: Folder of sweeps on the cluster.
        spec: The sweep's, where it is known here.

    Raises:
        ClusterError: The cluster does not take it.
    """
    check_size(Path.cwd())
    requirements = spec.requirements if spec is not None else []
    head_python = _python_of_head(connection)
    python = "python" if requirements else head_python  # requirements make an environment with a Python of its own
    grace_s = int(min(spec.stop_grace_s, _FOR_EVER_S) if spec is not None else 60) + _RECORD_S
    environment = settings(spec.trackers) if spec is not None else {}
    in_paths_and_urls = re.sub(r"[^\w.-]", "-", name)
    job = f"{in_paths_and_urls}-{secrets.token_hex(4)}"
    metadata = {_NAME: name, _STORAGE: storage}
    with _asking(connection):
        connection.jobs.submit_job(
            entrypoint=f"exec {shlex.join([python, '-m', 'xaytune', *command, '--events'])}",
            submission_id=job,
            metadata=metadata,
            runtime_env={
                "working_dir": os.getcwd(),
                "excludes": EXCLUDED,
                "env_vars": {**environment, "RAY_JOB_STOP_WAIT_TIME_S": str(grace_s)},
                **({"pip": requirements} if requirements else {}),
            },
        )
    return ClusterSweep(connection, job, metadata)


def find(connection: Connection, name: str) -> ClusterSweep:
    """Returns the sweep of a name, or of a job's id: of several jobs, the one that was started last.

    A job whose sweep never began, for its name was taken, say, does not hide the one that has the name.

    Raises:
        ClusterError: There is none.
    """
    with _asking(connection):
        jobs = [job for job in connection.jobs.list_jobs() if _NAME in (job.metadata or {})]
    newest_first = sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)
    sweeps = [ClusterSweep(connection, str(job.submission_id), job.metadata or {}) for job in newest_first]
    for sweep in sweeps:
        if name == sweep.job:
            return sweep
    names, unbegun = [], None
    for sweep, details in zip(sweeps, newest_first, strict=True):
        state = None
        try:
            state = sweep.state(details)
        except ClusterError:  # the log of an old job may be gone
            if not details.status.is_terminal():
                raise
        names.append(state.name if state is not None else sweep.job)
        if name == names[-1]:
            return sweep
        if state is None and name == sweep.asked:
            unbegun = unbegun or sweep
    if unbegun is not None:
        return unbegun
    known = f"there are: {', '.join(dict.fromkeys(names))}" if names else "there is none"
    raise ClusterError(f"no sweep {name!r} was launched on the cluster at {connection.name} ({known})")


def _python_of_head(connection: Connection) -> str:
    """The Python that runs Ray on the head, where the PATH may have another; waits until the head is ready."""
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        with contextlib.suppress(ClusterError):
            nodes = connection.get("/api/v0/nodes")["data"]["result"]["result"]
            for head in (node["node_id"] for node in nodes if node["is_head_node"]):
                raylet: Sequence[str] = connection.get(f"/nodes/{head}")["data"]["detail"].get("cmdline", [])
                workers = [part.partition("=")[2] for part in raylet if part.startswith(_WORKERS)]
                if workers:
                    return shlex.split(workers[0])[0]
        time.sleep(_AGAIN_S)
    return "python"


@contextlib.contextmanager
def _asking(connection: Connection) -> Iterator[None]:
    """Raises what a cluster answers to a request as an error that names the cluster."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise ClusterError(f"the cluster at {connection.name} refused: {error}") from None
