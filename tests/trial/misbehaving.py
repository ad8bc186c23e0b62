"""A recipe that misbehaves as it is told to, after it has printed what it found."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.trial.recipes import loop
from tests.trial.world import RUNS, world
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.run.trial import Trial

_KEPT: list[Any] = []


def _sleep(folder: Path, *, session: bool) -> None:
    script = f"import time; time.sleep(3600)  # {folder}"
    subprocess.Popen([sys.executable, "-S", "-c", script], start_new_session=session)


def _daemon(folder: Path) -> None:
    script = f"sleep 3600; : {folder}"
    subprocess.run(["sh", "-c", f"setsid sh -c '{script}' > /dev/null 2>&1 &"], check=True)


def _threads(folder: Path) -> None:
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def _fork(folder: Path) -> None:
    if os.fork() == 0:
        time.sleep(3600)


MISCHIEF: dict[str, Callable[[Path], object]] = {
    "threads": _threads,
    "child": lambda folder: _sleep(folder, session=False),
    "child in a session": lambda folder: _sleep(folder, session=True),
    "daemon": _daemon,
    "fork": _fork,
    "pool": lambda folder: _KEPT.append(multiprocessing.get_context("fork").Pool(2)),
    "open files": lambda folder: _KEPT.extend(open("/dev/null") for _ in range(50)),  # noqa: SIM115
    "environment": lambda folder: os.environ.update(LEAKED="1", OMP_NUM_THREADS="7"),
    "signals": lambda folder: [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGCHLD)],
    "blocked signals": lambda folder: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2}),
    "module": lambda folder: RUNS.append(1),
    "dtype": lambda folder: torch.set_default_dtype(torch.float64),
    "device": lambda folder: torch.set_default_device("meta"),
    "folder": lambda folder: os.chdir("/"),
    "mask": lambda folder: os.umask(0o077),
    "limits": lambda folder: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    "warnings": lambda folder: warnings.simplefilter("error"),
    "logging": lambda folder: logging.basicConfig(force=True, level=logging.DEBUG, stream=sys.stdout),
    "streams": lambda folder: os.closerange(0, 3),
    "descriptors": lambda folder: os.closerange(3, 256),
    "draws": lambda folder: (random.seed(1), np.random.seed(1), torch.manual_seed(1)),
    "exit": lambda folder: sys.exit(0),
    "sudden exit": lambda folder: os._exit(3),
    "crash": lambda folder: ctypes.string_at(0),
    "kill": lambda folder: os.kill(os.getpid(), signal.SIGKILL),
    "kill of its group": lambda folder: os.killpg(0, signal.SIGKILL),
    "error": lambda folder: torch.empty(2**50),
    "builtins": lambda folder: setattr(sys.modules["builtins"], "print", None),
    "modules": lambda folder: sys.modules.clear(),
    "recursion": lambda folder: sys.setrecursionlimit(100),
    "tracing": lambda folder: sys.settrace(lambda *event: None),
    "memory": lambda folder: _KEPT.append(bytearray(50_000_000)),
}


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    limits, random_state = resource.getrlimit(resource.RLIMIT_NOFILE), random.random()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print({**world(), "limits": limits, "drawn by Python": random_state, "blocked signals": blocked}, flush=True)
    for name in config["mischief"]:
        MISCHIEF[name](trial.checkpoint_dir.parents[1])
    return loop(trial)
