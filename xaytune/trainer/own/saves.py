"""Checkpoints of a loop of one's own: what is kept, when it is saved, and which one is resumed from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from xaytune.errors import CheckpointError
from xaytune.trainer import random_state
from xaytune.trainer.cadence import Cadence
from xaytune.trainer.context import RunContext
from xaytune.trainer.folder import CheckpointFolder
from xaytune.trainer.kept import Kept
from xaytune.trainer.made_with import MadeWith
from xaytune.trainer.random_state import Generator

_KIND: Final = "loop of one's own"


class Saves:
    """Writes and reads the checkpoints of one run.

    Attributes:
        cadence: When a save is due that nothing but the time asks for.

    Args:
        trial: Whose they are; without a folder of its own nothing is saved or restored.
        every_s: Seconds between two saves that nothing but the time asks for, at least.
    """

    def __init__(self, trial: RunContext, every_s: float) -> None:
        self._trial = trial
        self.cadence = Cadence(every_s, trial.discard)
        self._things: dict[str, Any] | None = None
        self._made_with = MadeWith()

    def keep(self, things: Mapping[str, Any]) -> None:
        """Adds things whose state is saved and restored; one of the same name takes the place of another.

        Raises:
            TypeError: One of them has no state that could be saved and restored.
        """
        kept = {name: _as_kept(thing) for name, thing in things.items()}
        Kept(kept)
        self._things = (self._things or {}) | kept
        for name, thing in things.items():
            self._made_with.add(name, thing)

    def begin(self) -> list[Any]:
        """Learns that a loop begins; returns the optimizers and schedulers that Accelerate has prepared."""
        prepared = []
        for name, thing in (self._things or {}).items():
            if isinstance(thing, _Folders):
                for at, part in enumerate(thing.prepared()):
                    self._made_with.add(f"{name}.{at}", part)
                    prepared.append(part)
        self._made_with.train()
        return prepared

    @property
    def wanted(self) -> bool:
        """Whether the run is saved at all: without what is trained, a checkpoint would be worth nothing."""
        return self._things is not None and self._trial.checkpoint_dir is not None

    @cached_property
    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole when it is first asked for; None if there is none.

        Raises:
            CheckpointError: All of them are damaged, or they are not those of a loop of one's own.
        """
        saved = self._folder.newest() if self._folder is not None else None
        if saved is not None and saved.get("kind") != _KIND:
            raise CheckpointError(
                f"the checkpoints in {self._trial.checkpoint_dir} are not those of a loop of trial.epochs() or "
                "trial.steps(); something else, such as a Trainer, has written them: resume with what wrote them, "
                "or in another folder"
            )
        return saved

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restores what is kept; hyperparameters that the configuration has changed since stay the new ones.

        Raises:
            ValueError: The checkpoint lacks the state of something that is kept, or nothing is kept.
        """
        if self._things is None:
            raise ValueError(
                "there is a checkpoint to resume from, and nothing is kept to restore: call trial.keep() before "
                "the loop begins"
            )
        begin_anew = Kept(self._things).load_state_dict(saved["kept"])
        self._made_with.follow(saved.get("made_with", {}), begin_anew)

    def write(self, progress: Mapping[str, Any], global_step: int, *, asked: bool) -> Path:
        """Writes a checkpoint of what is kept, and of the run's progress.

        Args:
            progress: The rest of what it holds.
            global_step: Its step.
            asked: Whether it was asked for, and not only by the time that has passed.

        Raises:
            OSError: The file system refused.
            TypeError: Something in it could not be read again.
        """
        assert self._folder is not None
        assert self._things is not None
        with self.cadence.saving():
            state = {
                "kind": _KIND,
                "kept": Kept(self._things).state_dict(),
                "made_with": self._made_with.state_dict(),
                **progress,
            }
            path = self._folder.save(state, global_step)
        self.cadence.wrote(path, asked=asked)
        return path

    @cached_property
    def _folder(self) -> CheckpointFolder | None:
        if self._trial.checkpoint_dir is None:
            return None
        return CheckpointFolder(self._trial.checkpoint_dir, None, self._trial, None, resume=True)


class _Folders:
    """A thing that saves its state into a folder by ``save_state``, as an Accelerator does."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def prepared(self) -> list[Any]:
        """Returns the optimizers and schedulers that it has prepared."""
        return [part for kind in ("_optimizers", "_schedulers") for part in getattr(self._thing, kind, ())]

    def save(self, folder: Path) -> None:
        self._thing.save_state(str(folder))

    def load(self, folder: Path) -> None:
        self._thing.load_state(str(folder))


class _Drawing:
    """A random generator, whose state is saved as that of other things is."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        return {"generator": random_state.state_of(self._generator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        random_state.put(self._generator, state["generator"])


def _as_kept(thing: Any) -> Any:
    """Returns what has the states of a thing."""
    if isinstance(thing, Generator):
        return _Drawing(thing)
    has_states = all(callable(getattr(thing, name, None)) for name in ("save_state", "load_state"))
    return _Folders(thing) if has_states and not isinstance(thing, type) else thing
