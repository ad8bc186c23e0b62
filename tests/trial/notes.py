"""A callback of a spec that writes down what is fired in the process of a program."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from xaytune.trainer.callbacks import EVENTS, TrainState
from xaytune.trial.run.trial import Trial


def note(trial: Trial, config: dict[str, Any]) -> None:
    """Writes each event with its step; raises, or kills the process, where the configuration says so."""
    notes = (Path(config["out"]) / "events").open("a", buffering=1)

    for event in EVENTS:
        trial.callbacks.on(event)(lambda state, event=event: notes.write(f"{event} {state.global_step}\n"))

    @trial.callbacks.on("step_end")
    def fail(state: TrainState) -> None:
        if config["fails_with"] and state.global_step == 2:
            raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[config["fails_with"]](
                "broken"
            )

    @trial.callbacks.on("step_start")
    def kill(state: TrainState) -> None:
        if state.global_step == config["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
