"""A clean process: what one trial changed of it is put back before the next one begins."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules import module
from torch.optim import optimizer

__all__ = ["Baseline"]

# Threads of these packages serve a process, not a trial.
_SERVING = ("ray", "torch", "tqdm", "wandb")


_LoggerSettings = tuple[list[Any], list[Any], int, bool, bool]
_NEW_LOGGER: _LoggerSettings = ([], [], logging.NOTSET, True, False)


class Baseline:
    """What a process was like when it was made: its globals, and the threads it had.

    What belongs to a thread alone (grad mode, autocast, the default device) needs no care: every trial has a
    thread of its own. The random generators are seeded anew for every trial.
    """

    def __init__(self) -> None:
        self._folder, self._environment, self._import_path = os.getcwd(), dict(os.environ), list(sys.path)
        self._warnings = list(warnings.filters)
        self._torch, self._num_threads = _torch_settings(), torch.get_num_threads()
        self._hooks = [hooks.copy() for hooks in _global_hooks()]
        self._loggers = {logger.name: _logger_settings(logger) for logger in _loggers()}
        self._threads = set(threading.enumerate())

    def restore(self) -> None:
        """Puts the globals back."""
        os.chdir(self._folder)
        os.environ.clear()
        os.environ.update(self._environment)
        sys.path[:] = self._import_path
        warnings.filters[:] = self._warnings  # type: ignore[index]
        # Every thread has a number of its own: that of this one does not tell what a trial has set.
        torch.set_num_threads(self._num_threads)
        now = _torch_settings()
        for put, setting in self._torch.items():
            if now[put] != setting:  # setting some takes torch half a second, the first time
                put(setting)
        for hooks, before in zip(_global_hooks(), self._hooks, strict=True):
            hooks.clear()
            hooks.update(before)
        for logger in _loggers():
            handlers, filters, level, propagate, disabled = self._loggers.get(logger.name, _NEW_LOGGER)
            logger.handlers[:], logger.filters[:] = handlers, filters
            if logger.level != level:  # setting it clears the caches of all loggers
                logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled

    def has_no_other_threads(self, trial: threading.Thread, timeout: float) -> bool:
        """Tells whether the threads that a trial started have ended.

        Args:
            trial: The trial's own thread, which may be about to end.
            timeout: Seconds to wait for them.
        """
        deadline = time.monotonic() + timeout
        for thread in threading.enumerate():
            if thread in self._threads or thread is trial or _serves(thread):
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
        return True


def _serves(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    made_by = getattr(target, "__module__", None) or type(thread).__module__
    return isinstance(thread, threading._DummyThread) or made_by.partition(".")[0] in _SERVING


def _torch_settings() -> dict[Callable[[Any], Any], Any]:
    """The settings of torch, by what sets them."""
    cudnn = torch.backends.cudnn
    return {
        torch.set_default_dtype: torch.get_default_dtype(),
        torch.set_float32_matmul_precision: torch.get_float32_matmul_precision(),
        torch.set_deterministic_debug_mode: torch.get_deterministic_debug_mode(),
        torch.autograd.set_detect_anomaly: torch.is_anomaly_enabled(),
        _set_cudnn: (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
    }


def _set_cudnn(flags: tuple[bool, bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags


def _global_hooks() -> list[dict[int, Any]]:
    """The registries of hooks that act on every module and every optimizer."""
    names = [name for name in dir(module) if name.startswith("_global_") and name.endswith("hooks")]
    found = [getattr(module, name) for name in sorted(names)]
    found += [optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks]
    return [hooks for hooks in found if isinstance(hooks, dict)]


def _loggers() -> Iterator[logging.Logger]:
    yield logging.root
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _logger_settings(logger: logging.Logger) -> _LoggerSettings:
    return list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled
