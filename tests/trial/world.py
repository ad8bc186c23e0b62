"""What a trial finds in its process."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

RUNS: list[int] = []


class Net(torch.nn.Linear):
    calls = 0


@functools.cache
def cached(name: str) -> list[int]:
    return []


def world() -> dict[str, Any]:
    """What a trial finds in its process."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "list of a module": list(RUNS),
        "attribute of a class": Net.calls,
        "cache": cached("a"),
        "sharing strategy": torch.multiprocessing.get_sharing_strategy(),
        "numpy's errors": np.geterr(),
        "numpy's print options": np.get_printoptions(),
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "environment": {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        "folder": os.getcwd(),
        "warnings": [str(one) for one in warnings.filters],
        "loggers": sorted((n, getattr(one, "level", 0)) for n, one in logging.root.manager.loggerDict.items()),
        "log handlers": [str(handler) for handler in logging.root.handlers],
        "mask": mask,
        "argv": list(sys.argv),
        "path": list(sys.path),
        "relu": torch.nn.functional.relu.__name__,
        "excepthook": sys.excepthook is sys.__excepthook__,
        "signals": {n: str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)},
        "Python threads": [thread.name for thread in threading.enumerate()],
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "children": multiprocessing.active_children(),
        "flush": float(torch.tensor(1e-40) * 1.0),
        "drawn": float(torch.rand(())),
    }
