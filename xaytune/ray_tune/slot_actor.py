"""The Ray side of trials that are trained fused: one actor, several trials."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from xaytune.errors import Problem
from xaytune.messages import Assignment, Ended, Failure, Message, Refused, Started, StopRequest
from xaytune.ray_tune.node_actor import NodeActor
from xaytune.trial.client.fused_attempts import IDLE_S, FusedTrials
from xaytune.trial.client.template_client import TemplateError


class SlotActor(NodeActor):
    """Runs many trials in one process; they are given to it one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._trials: FusedTrials | None = None
        self._unsent: list[Message] = []

    def assign(self, assignment: Assignment, *, alone: bool) -> None:
        """Gives the slot a trial; one that is alone gets a process in which none was before."""
        sender = assignment.sender
        if (problem := self.storage_problem()) is not None:
            self._unsent.append(Refused(**sender, problems=(problem,)))
            return
        if alone and self._trials is not None:
            self._trials.close()
        if self._trials is None or not self._trials.running:
            try:
                self._trials = FusedTrials(self.template(), self.task, self.environment)
            except TemplateError as error:
                self._unsent.append(Refused(**sender, problems=(Problem(("recipe",), str(error)),)))
                return
            except OSError as error:  # the machine is short of memory or processes
                lost = Failure("lost", f"its process cannot be started: {error}")
                self._unsent.append(Ended(**sender, status="failed", reason=lost.error, failure=lost))
                return
        self._trials.assign(assignment)

    def stop_trial(self, trial: int, request: StopRequest) -> None:
        """Asks a trial to end through its own loop."""
        if self._trials is not None:
            self._trials.request_stop(trial, request)

    def release(self, trial: int) -> None:
        """Pauses a trial."""
        if self._trials is not None:
            self._trials.release(trial)

    def train(self) -> dict[str, Any]:
        """Waits for the trials' next messages, and returns them as a result of Tune's."""
        messages, self._unsent = self._unsent, []
        if not messages and self._trials is None:
            time.sleep(IDLE_S)  # its process could not be started, and it has no other trial yet
        elif not messages and self._trials is not None:
            heard = self._trials.next_messages(self.task.heartbeat_s)
            known = {**self.node, "notes": self._trials.notes}
            messages = [replace(one, **known) if isinstance(one, Started) else one for one in heard]
        wanted = self._trials.wanted if self._trials is not None else None
        return {"messages": messages, "wanted": wanted, "done": False}

    def stop(self) -> None:
        """Ends the trials' process, if it runs."""
        if self._trials is not None:
            self._trials.close()
