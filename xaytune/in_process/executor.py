"""The executor of this process: trials train here, one after another, with nothing between them and a debugger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from xaytune.driver.driver import Driver
from xaytune.driver.orders import Order, Release, RequestStop
from xaytune.messages import PAUSE, Assignment, DecisionDue, Message, Started, StopRequest
from xaytune.records.history import Row
from xaytune.trial.common.link import Link
from xaytune.trial.run.failures import ProgramLostError


class InProcessExecutor:
    """Trains the trials of a sweep. It is their link to the driver itself; histories are not kept.

    Args:
        driver: The driver.
        train: Trains what it is given, and tells the link what it has to say.
    """

    busy = False

    def __init__(self, driver: Driver, train: Callable[[Assignment, Link], object]) -> None:
        self._driver, self._train = driver, train
        self._trial = 0
        self._request: StopRequest | None = None
        self._error: Exception | None = None  # of the driver's: no failure of the trial through which it came

    def run(self) -> None:
        """Runs the sweep to its end.

        Raises:
            SpecError: The sweep cannot run as specified.
            StorageError: The sweep's folder cannot be written any more.
        """
        while (assignment := self._driver.next()) is not None:
            self._trial, self._request = assignment.trial, None
            self._perform(self._driver.started(assignment.trial))
            started = Started(**assignment.sender, node="here", pid=os.getpid())
            self.tell(started, [])
            try:
                self._train(assignment, self)
            except ProgramLostError as lost:
                self._perform(self._driver.lost(assignment.trial, lost.failure.kind, lost.failure.error))
            if self._error is not None:
                raise self._error
            self._perform(self._driver.tick())

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Takes what a trial says; one that was released has nothing more to say."""
        if self._error is not None or not self._driver.runs(message.trial):
            return
        try:
            self._perform([*self._driver.receive(message), *self._driver.tick()])
        except Exception as error:
            self._error = error
            raise

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        """Takes what a trial was worth at a decision point, and returns what it is asked then."""
        self.tell(message, rows)
        return self.stop_request()

    def stop_request(self) -> StopRequest | None:
        """Returns what the trial is asked, once."""
        request, self._request = self._request, None
        return request

    def _perform(self, orders: Iterable[Order]) -> None:
        for order in orders:
            if order.trial != self._trial:
                continue
            if isinstance(order, RequestStop):
                self._request = order.request
            elif isinstance(order, Release):
                self._request = PAUSE
