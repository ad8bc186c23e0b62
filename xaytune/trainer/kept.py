"""Things of the user's that are kept with a run: their state goes into its checkpoints, and comes back with them.

Anything will do that has ``state_dict()`` and ``load_state_dict(state)``, as modules, optimizers and schedulers
of torch have, or ``save(folder)`` and ``load(folder)``, for what can only write files.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from xaytune.trainer.made_with import kind_of, unwrapped

logger = logging.getLogger(__name__)


class Kept:
    """Named things whose state is saved and restored together.

    Args:
        things: By name.

    Raises:
        TypeError: One of them has no state that could be saved and restored, or its name is no string.
    """

    def __init__(self, things: Mapping[str, Any]) -> None:
        for name, thing in things.items():
            _check(name, thing)
        self._things = dict(things)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of each by name."""
        return {name: _state_of(thing) for name, thing in self._things.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> set[str]:
        """Restores each from what :meth:`state_dict` returned.

        Returns:
            The names of optimizers and schedulers that begin anew: they are of another kind than the saved ones.

        Raises:
            ValueError: Nothing was saved of one of them: its state would silently be a new one.
        """
        missing = self._things.keys() - saved.keys()
        if missing:
            raise ValueError(
                f"the checkpoint has no state of {_names(missing)}: it was saved without (it has "
                f"{_names(saved) if saved else 'none of any kept thing'}); keep what was kept when it was saved"
            )
        if saved.keys() - self._things.keys():
            logger.warning(
                "the checkpoint's state of %s is left out: it is not kept now",
                _names(saved.keys() - self._things.keys()),
            )
        return {name for name, thing in self._things.items() if not _restored(name, thing, saved[name])}

    def parameters(self) -> Iterator[Tensor]:
        """Yields the parameters of the modules among them."""
        for thing in self._things.values():
            if isinstance(thing, nn.Module):
                yield from thing.parameters()


def _state_of(thing: Any) -> dict[str, Any]:
    """Returns the state of a thing that can be kept, in a form that a checkpoint can hold."""
    if _has(thing, "state_dict", "load_state_dict"):
        return {"state": thing.state_dict(), "kind": _kind(thing)}
    with tempfile.TemporaryDirectory(prefix="xaytune-kept-") as scratch:
        thing.save(Path(scratch))
        files = sorted(path for path in Path(scratch).rglob("*") if path.is_file())
        return {"files": {path.relative_to(scratch).as_posix(): _as_tensor(path.read_bytes()) for path in files}}


def restore(thing: Any, saved: Mapping[str, Any]) -> None:
    """Puts a thing of the user's back into the state that a checkpoint has of it."""
    if "state" in saved:
        _check_groups(thing, saved["state"])
        thing.load_state_dict(saved["state"])
        return
    with tempfile.TemporaryDirectory(prefix="xaytune-kept-") as scratch:
        for name, content in saved["files"].items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())
        thing.load(Path(scratch))


def _restored(name: str, thing: Any, saved: Mapping[str, Any]) -> bool:
    kind, saved_kind = _kind(thing), saved.get("kind", saved.get("optimizer_kind"))
    if kind is not None and saved_kind not in (None, kind):
        logger.warning("%r was saved with %s: %s begins without its state", name, saved_kind, kind)
        return False
    restore(thing, saved)
    return True


def _kind(thing: Any) -> str | None:
    return kind_of(thing) if isinstance(unwrapped(thing), (torch.optim.Optimizer, LRScheduler)) else None


def _check_groups(thing: Any, state: Any) -> None:
    """Raises where an optimizer lacks groups of parameters that it had."""
    if not isinstance(thing, torch.optim.Optimizer) or "param_groups" not in state:
        return
    saved, now = len(state["param_groups"]), len(thing.param_groups)
    if saved != now:
        raise ValueError(
            f"the optimizer had {saved} groups of parameters when it was saved (it has {now} now): where a run "
            "adds a group on its way, make the optimizer with all of them, and let their parameters require "
            "gradients from then on"
        )


def _check(name: Any, thing: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a kept thing must be a string (got {name!r})")
    if isinstance(thing, type) or not (
        _has(thing, "state_dict", "load_state_dict") or _has(thing, "save", "load")
    ):
        raise TypeError(
            f"{name!r} cannot be kept: a {type(thing).__name__} has neither state_dict() and "
            "load_state_dict(state), nor save(folder) and load(folder)"
        )


def _has(thing: Any, *methods: str) -> bool:
    return all(callable(getattr(thing, method, None)) for method in methods)


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names))
