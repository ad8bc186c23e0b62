"""The Ray side of a trial: a thin actor that Tune's controller drives, reused for trial after trial.

It is no ``tune.Trainable``: of that the controller calls three methods, and importing Tune would take each actor a
second and 100 MB.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import ray

from xaytune.errors import Problem
from xaytune.ray_tune.bundles import PLACEMENT_GROUP
from xaytune.ray_tune.shared_storage import not_shared
from xaytune.ray_tune.uploading import upload
from xaytune.records.remote import RemoteFolder
from xaytune.trial.attempt import TrialProcess
from xaytune.trial.messages import (
    Assignment,
    Ended,
    Failure,
    Message,
    Progress,
    Refused,
    Started,
    StopRequest,
    Task,
)
from xaytune.trial.recipe import portable
from xaytune.trial.template_client import Template, TemplateError, set_by_ray

__all__ = ["TrialActor", "actor_for"]


class TrialActor:
    """Runs one trial at a time, in a process of its own.

    Args:
        assignment: The first trial. It begins with the first call of :meth:`train`: until then Tune may drop the
            actor again.
    """

    task: Task

    def __init__(self, assignment: Assignment | None) -> None:
        context = ray.get_runtime_context()
        self._node: dict[str, Any] = {"node": ray.util.get_node_ip_address(), "node_id": context.get_node_id()}
        self._environment = _environment(self.task, context.gcs_address)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._remote: RemoteFolder | None = None
        if self.task.remote is not None:
            # Nothing of the sweep is kept on this node.
            self._remote = RemoteFolder(self.task.remote)
            self._scratch = tempfile.TemporaryDirectory(prefix="xaytune-trial-")
            self.task = dataclasses.replace(self.task, sweep_dir=self._scratch.name)
        self._template: Template | None = None
        self._assign(assignment)

    def train(self) -> dict[str, Any]:
        """Waits for the trial's next message, and returns it as a result of Tune's."""
        message = self._next_message()
        return {"message": message, "done": _is_last(message)}

    def reset(self, assignment: Assignment | None) -> bool:
        """Starts the next trial, and tells Tune that this has worked: the trial's messages say what has not."""
        self.stop()
        self._assign(assignment)
        self._begin()
        return True

    def stop(self) -> None:
        """Ends the trial's process, if it runs."""
        if self._process is not None:
            self._process.close()

    def _assign(self, assignment: Assignment | None) -> None:
        assert assignment is not None
        self._assignment = assignment
        self._process: TrialProcess | None = None
        self._problem: Problem | None = None
        self._early_request: StopRequest | None = None
        self._introduced = False

    def _begin(self) -> None:
        """Starts the trial's process."""
        if not Path(self.task.sweep_dir).is_dir():
            self._problem = not_shared(self.task.sweep_dir, self._node["node"])
            return
        try:
            self._process = TrialProcess(self._ready_template(), self.task, self._assignment, self._environment)
        except TemplateError as error:
            self._problem = Problem(("recipe",), str(error))
            return
        if self._early_request is not None:
            self._process.request_stop(self._early_request)

    def _ready_template(self) -> Template:
        if self._template is None:
            self._template = Template(self.task)
        return self._template

    def request_stop(self, request: StopRequest) -> None:
        """Asks the trial to end through its own loop."""
        if self._process is None:
            self._early_request = request
        else:
            self._process.request_stop(request)

    def _next_message(self) -> Message:
        sender: dict[str, Any] = {"trial": self._assignment.trial, "attempt": self._assignment.attempt}
        if self._process is None:
            self._begin()
        if self._process is None:
            assert self._problem is not None
            return Refused(**sender, problems=(self._problem,))
        if not self._introduced:
            self._introduced = True
            return Started(**sender, **self._node, pid=self._process.pid, notes=self._process.notes)
        message = self._process.next_message(self.task.heartbeat_s)
        if self._remote is not None and isinstance(message, Progress):
            try:
                upload(message, Path(self.task.sweep_dir), self._remote)
            except OSError as error:
                failure = Failure("storage", str(error))
                message = Ended(**sender, status="failed", reason=str(error), failure=failure)
        return message


def actor_for(task: Task, kind: type[TrialActor] = TrialActor) -> type[TrialActor]:
    """Returns the class of a sweep's actors."""
    return type("Trial", (kind,), {"task": portable(task)})


def _is_last(message: Message) -> bool:
    """Whether a trial is over with a message; one that lost its process may be restarted."""
    lost = isinstance(message, Ended) and message.failure is not None and message.failure.kind == "lost"
    return isinstance(message, (Ended, Refused)) and not lost


def _environment(task: Task, address: str) -> dict[str, str]:
    """Returns what a trial finds in its environment: this actor's, but that it is no process of Ray's.

    ``ray.init()`` in a recipe finds the sweep's Ray.
    """
    kept = {n: v for n, v in os.environ.items() if not set_by_ray(n, v) or n.startswith("RAY_AUTH")}
    if not task.gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    group = ray.util.get_current_placement_group()
    bundles = {} if group is None else {PLACEMENT_GROUP: group.id.hex()}
    return kept | bundles | {"RAY_ADDRESS": address}
