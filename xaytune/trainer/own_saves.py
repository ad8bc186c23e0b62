"""Checkpoints of a loop of one's own: what is kept, when it is saved, and which one is resumed from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from xaytune.trainer import checkpoint, hyperparameters
from xaytune.trainer.kept import Kept

__all__ = ["Saves"]

logger = logging.getLogger(__name__)

_KIND: Final = "loop of one's own"
# The largest share of the time that saving takes, besides what a decision or the end asks for.
_SHARE: Final = 0.05


class Saves:
    """Writes and reads the checkpoints of one run.

    Args:
        folder: Where they are; None saves and restores nothing.
        discard: Deletes a checkpoint that is needed no longer.
        every_s: Seconds between two saves that nothing but the time asks for, at least; 0 saves at each body's
            end, whatever that costs.
    """

    def __init__(self, folder: Path | None, discard: Callable[[Path], None], every_s: float) -> None:
        self.folder = folder
        self._discard = discard
        self._every_s = every_s
        self._things: dict[str, Any] | None = None
        self._hyperparameters: dict[str, list[dict[str, Any]]] = {}
        self._next = time.monotonic() + every_s
        self._by_time: list[Path] = []  # those that only the time asked for, oldest first
        self._newest: dict[str, Any] | None = None
        self._read = False

    def keep(self, things: Mapping[str, Any]) -> None:
        """Adds things whose state is saved and restored; one of the same name takes the place of another.

        Raises:
            TypeError: One of them has no state that could be saved and restored.
        """
        kept = {name: _with_folders(thing) for name, thing in things.items()}
        Kept(kept)
        self._things = (self._things or {}) | kept
        for name, thing in things.items():
            if isinstance(thing, torch.optim.Optimizer):
                self._hyperparameters[name] = hyperparameters.of(thing)

    @property
    def wanted(self) -> bool:
        """Whether the run is saved at all: without what is trained, a checkpoint would be worth nothing."""
        return self.folder is not None and self._things is not None

    def due(self) -> bool:
        """Whether it is time to save: seldom enough to take but a small share of it."""
        return self.wanted and time.monotonic() >= self._next

    def newest(self) -> dict[str, Any] | None:
        """Returns the newest checkpoint that is whole, read once; None if there is none.

        Raises:
            CheckpointError: All of them are damaged, or they are not those of a loop of one's own.
        """
        if not self._read and self.folder is not None:
            self._newest = _newest_whole(self.folder)
        self._read = True
        return self._newest

    def latest(self) -> Path | None:
        """Returns the path of the newest checkpoint that is whole; None if there is none."""
        for path in reversed(checkpoint.list_checkpoints(self.folder) if self.folder is not None else []):
            try:
                checkpoint.verify(path)
            except checkpoint.CheckpointError as error:
                logger.warning("%s; taking the one before it", error)
            else:
                return path
        return None

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restores what is kept; hyperparameters that the configuration has changed since stay the new ones."""
        things = self._things or {}
        Kept(things).load_state_dict(saved["kept"])
        for name, begun in saved["hyperparameters"].items():
            optimizer = things.get(name)
            if not isinstance(optimizer, torch.optim.Optimizer):
                continue
            schedulers = [thing for thing in things.values() if getattr(thing, "optimizer", None) is optimizer]
            scheduler = schedulers[0] if schedulers else None
            hyperparameters.follow(optimizer, scheduler, self._hyperparameters[name], begun)
            # Else torch warns, falsely: a scheduler does not see the steps of the process before.
            optimizer._opt_called = True  # type: ignore[attr-defined]

    def write(self, progress: Mapping[str, Any], global_step: int, *, by_time: bool) -> Path:
        """Writes a checkpoint of what is kept, and of the run's progress.

        Raises:
            OSError: The file system refused.
            TypeError: Something in it could not be read again.
        """
        assert self.folder is not None
        begun = time.monotonic()
        path = checkpoint.path_for(self.folder, global_step)
        payload = {
            "kind": _KIND,
            "kept": Kept(self._things or {}).state_dict(),
            "hyperparameters": self._hyperparameters,
            **progress,
        }
        checkpoint.save(payload, path)
        now = time.monotonic()
        self._next = now + (max(self._every_s, (now - begun) / _SHARE) if self._every_s else 0.0)
        if by_time:
            self._discard_all_but_two(path)
        elif path in self._by_time:
            self._by_time.remove(path)
        return path

    def _discard_all_but_two(self, written: Path) -> None:
        if written not in self._by_time:
            self._by_time.append(written)
        while len(self._by_time) > 2:  # the older one is for the case that the newest is damaged
            self._discard(self._by_time.pop(0))


def _newest_whole(folder: Path) -> dict[str, Any] | None:
    damaged: checkpoint.CheckpointError | None = None
    for path in reversed(checkpoint.list_checkpoints(folder)):
        try:
            payload = checkpoint.load(path)
        except checkpoint.CheckpointError as error:
            logger.warning("%s; trying the one before it", error)
            damaged = error
            continue
        if payload.get("kind") != _KIND:
            raise checkpoint.CheckpointError(
                f"{path}: not a checkpoint of a loop of trial.epochs() or trial.steps(); something else, such as "
                "a Trainer, has written it: resume with what wrote it, or in another folder"
            )
        return payload
    if damaged is not None:
        raise damaged
    return None


class _Folders:
    """A thing that saves its state into a folder by ``save_state``, as an Accelerator does."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def save(self, folder: Path) -> None:
        self._thing.save_state(str(folder))

    def load(self, folder: Path) -> None:
        self._thing.load_state(str(folder))


def _with_folders(thing: Any) -> Any:
    has_states = all(callable(getattr(thing, name, None)) for name in ("save_state", "load_state"))
    return _Folders(thing) if has_states and not isinstance(thing, type) else thing
