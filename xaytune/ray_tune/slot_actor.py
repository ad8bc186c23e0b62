"""The Ray side of trials that are trained fused: one actor, several trials."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from xaytune.driver.orders import Release, RequestStop
from xaytune.errors import Problem
from xaytune.messages import Assignment, Ended, Failure, Message, Refused, Started
from xaytune.ray_tune.node_actor import NodeActor
from xaytune.trial.client.fused_attempts import IDLE_S, FusedTrials
from xaytune.trial.client.template_client import TemplateError


@dataclass(frozen=True)
class Begin:
    """A trial is to begin.

    Attributes:
        assignment: The trial.
        alone: Whether it is to have a process in which none was before.
    """

    assignment: Assignment
    alone: bool


class SlotActor(NodeActor):
    """Runs many trials in one process, which begin and end one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._trials: FusedTrials | None = None
        self._unsent: list[Message] = []

    def train(self, orders: Iterable[Begin | RequestStop | Release]) -> dict[str, Any]:
        """Does what is ordered, waits for the trials' next messages, and returns them as a result of Tune's."""
        for order in orders:
            self._carry_out(order)
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

    def _carry_out(self, order: Begin | RequestStop | Release) -> None:
        if isinstance(order, Begin):
            self._begin(order)
        elif self._trials is not None and isinstance(order, RequestStop):
            self._trials.request_stop(order.trial, order.request)
        elif self._trials is not None:
            self._trials.release(order.trial)

    def _begin(self, order: Begin) -> None:
        sender = order.assignment.sender
        if (problem := self.storage_problem()) is not None:
            self._unsent.append(Refused(**sender, problems=(problem,)))
            return
        if order.alone and self._trials is not None:
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
        self._trials.assign(order.assignment)
