"""Trials that misbehave at random: each finds what the first found, and none leaves a process."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.trial.conftest import Node, is_gone
from tests.trial.misbehaving import MISCHIEF


def run(runs: int, seed: int) -> None:
    """Trains trials one after another on one template process.

    Args:
        runs: How many.
        seed: What their mischief is drawn from.

    Raises:
        AssertionError: A trial found something of those before it, or a process is left.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="misbehaviour-") as scratch:
        folder = Path(scratch)
        node = Node(folder, "tests.trial.misbehaving:train")
        first = None
        pids = []
        for number in range(runs):
            mischief = draw.sample(sorted(MISCHIEF), draw.randint(0, 5))
            begun = time.monotonic()
            outcome = node.train(folder, config={"mischief": mischief}, trial=number)
            pids.append(outcome.pid)
            world = outcome.output.splitlines()[0]
            first = first or world
            assert world == first, f"trial {number} after {mischief}:\n{world}\nand the first:\n{first}"
            print(f"{number}: {outcome.ended.status}, {time.monotonic() - begun:.2f} s, {', '.join(mischief)}")
        left = [pid for pid in pids if not is_gone(pid)]
        marked = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_of(pid, scratch)]
        node.template.end()
    assert not left + marked, f"processes are left: {left + marked}"
    sys.stdout.flush()


def _is_of(pid: int, folder: str) -> bool:
    """Whether a process was started by a trial: each child is told the sweep's folder."""
    try:
        return folder.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
