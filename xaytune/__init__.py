"""xaytune: hyperparameter tuning of PyTorch trainers on Ray.

What is exported here is loaded when it is first used: ``import xaytune`` itself imports neither Ray nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaytune.errors import (
        CheckpointError,
        ClusterError,
        DashboardError,
        JournalError,
        PicturesError,
        RemoteError,
        SessionError,
        SkipTrial,
        SpecError,
        StorageError,
        XaytuneError,
    )
    from xaytune.ray_tune.sweep import Sweep, resume
    from xaytune.records.results import Results
    from xaytune.report.live import LiveView
    from xaytune.trainer.callbacks import CallbackManager, TrainState
    from xaytune.trainer.trainer import Trainer
    from xaytune.trial.program.joining import current_trial
    from xaytune.trial.run.trial import Trial
    from xaytune.trial.trackers.tracker import Tracker

    __version__: str

__all__ = [
    "CallbackManager",
    "CheckpointError",
    "ClusterError",
    "DashboardError",
    "JournalError",
    "LiveView",
    "PicturesError",
    "RemoteError",
    "Results",
    "SessionError",
    "SkipTrial",
    "SpecError",
    "StorageError",
    "Sweep",
    "Tracker",
    "TrainState",
    "Trainer",
    "Trial",
    "XaytuneError",
    "current_trial",
    "resume",
]

_HOMES = {
    "xaytune.errors": tuple(name for name in __all__ if name.endswith("Error") or name == "SkipTrial"),
    "xaytune.ray_tune.sweep": ("Sweep", "resume"),
    "xaytune.records.results": ("Results",),
    "xaytune.report.live": ("LiveView",),
    "xaytune.trainer.callbacks": ("CallbackManager", "TrainState"),
    "xaytune.trainer.trainer": ("Trainer",),
    "xaytune.trial.program.joining": ("current_trial",),
    "xaytune.trial.trackers.tracker": ("Tracker",),
    "xaytune.trial.run.trial": ("Trial",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("xaytune")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'xaytune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
