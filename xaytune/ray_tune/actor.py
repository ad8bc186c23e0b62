"""The Ray side of a trial: an actor that Tune's controller drives, with a process for each trial after another."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xaytune.driver.orders import Kill, RequestStop
from xaytune.errors import Problem
from xaytune.messages import (
    Assignment,
    Ended,
    Failure,
    Message,
    Progress,
    Refused,
    Started,
    StopRequest,
)
from xaytune.ray_tune.node_actor import NodeActor
from xaytune.ray_tune.uploading import empty, upload, upload_rest
from xaytune.records.remote import RemoteFolder
from xaytune.trial.client.attempt import AttemptProcess
from xaytune.trial.client.template_client import TemplateError


class TrialActor(NodeActor):
    """Runs one trial at a time, in a process of its own.

    Args:
        assignment: The first trial. It begins with the first call of :meth:`train`: until then Tune may drop the
            actor again.
    """

    def __init__(self, assignment: Assignment) -> None:
        super().__init__()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._remote: RemoteFolder | None = None
        if self.task.remote is not None:
            # Nothing of the sweep is kept on this node.
            self._remote = RemoteFolder(self.task.remote)
            self._scratch = tempfile.TemporaryDirectory(prefix="xaytune-trial-")
            self.task = dataclasses.replace(self.task, sweep_dir=self._scratch.name)
        self._assign(assignment)

    def train(self, orders: Iterable[RequestStop | Kill]) -> dict[str, Any]:
        """Does what is ordered, waits for the trial's next message, and returns it as a result of Tune's."""
        for order in orders:
            self._carry_out(order)
        message = self._next_message()
        return {"message": message, "done": _is_last(message)}

    def reset(self, assignment: Assignment) -> bool:
        """Starts the next trial, and tells Tune that this has worked: the trial's messages say what has not."""
        self.stop()
        self._assign(assignment)
        self._begin()
        return True

    def stop(self) -> None:
        """Ends the trial's process, if it runs."""
        if self._process is not None:
            self._process.close()
        if self._remote is not None:  # of one that was paused or lost; that of others is there
            with contextlib.suppress(OSError):
                upload_rest(self._assignment.trial, Path(self.task.sweep_dir), self._remote)
            empty(Path(self.task.sweep_dir))

    def _assign(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._process: AttemptProcess | None = None
        self._problem: Problem | None = None
        self._early_request: StopRequest | None = None
        self._introduced = False

    def _begin(self) -> None:
        """Starts the trial's process."""
        self._problem = self.storage_problem()
        if self._problem is not None:
            return
        try:
            self._process = AttemptProcess(self.template(), self.task, self._assignment, self.environment)
        except TemplateError as error:
            self._problem = Problem(("recipe",), str(error))
            return
        if self._early_request is not None:
            self._process.request_stop(self._early_request)

    def _carry_out(self, order: RequestStop | Kill) -> None:
        """Asks the trial to end through its own loop; or kills its process, whose end is the next message."""
        if isinstance(order, Kill):
            if self._process is not None:
                self._process.kill()
        elif self._process is None:
            self._early_request = order.request
        else:
            self._process.request_stop(order.request)

    def _next_message(self) -> Message:
        sender = self._assignment.sender
        if self._process is None:
            self._begin()
        if self._process is None:
            assert self._problem is not None
            return Refused(**sender, problems=(self._problem,))
        if not self._introduced:
            self._introduced = True
            return Started(**sender, **self.node, pid=self._process.pid, notes=self._process.notes)
        message = self._process.next_message(self.task.heartbeat_s)
        if self._remote is not None and isinstance(message, Progress):
            try:
                upload(message, Path(self.task.sweep_dir), self._remote)
            except OSError as error:
                failure = Failure("storage", str(error))
                message = Ended(**sender, status="failed", reason=str(error), failure=failure)
        return message


def _is_last(message: Message) -> bool:
    """Whether a trial is over with a message; one that lost its process may be restarted."""
    lost = isinstance(message, Ended) and message.failure is not None and message.failure.kind == "lost"
    return isinstance(message, (Ended, Refused)) and not lost
