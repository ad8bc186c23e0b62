"""What trials import: in the template process, once for all of them, or each anew where it cannot be forked."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import itertools
import os
import sys
import sysconfig
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from xaytune.errors import Problem, ProblemPath
from xaytune.messages import Task
from xaytune.sweep.command import Command, what_is_missing
from xaytune.sweep.options import Reference, reference_name
from xaytune.sweep.references import functions_of, problems_of, use_import_paths
from xaytune.trial.common.kernel import count_threads
from xaytune.trial.common.link import Imported
from xaytune.trial.common.output import last_lines
from xaytune.trial.common.recipe import ByValue, resolve

_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})


class Imports:
    """What a task names: its recipe, its callbacks, its trackers and its setup.

    Args:
        task: The task.

    Attributes:
        task: The task.
        problems: What is wrong with what was loaded so far.
        shared: What the setup returned.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.problems: list[Problem] = []
        self.shared: object = None
        functions = functions_of(task.recipe, task.callbacks, task.setup)
        named = [(".".join(map(str, path)), path, reference) for path, reference in functions.items()]
        self._left: dict[str, Callable[[], None]] = {
            "torch": self._import_torch,
            "trial": self._import_trial,
            "trackers": self._import_trackers,
        }
        if isinstance(task.recipe, Command):
            self._left["command"] = functools.partial(self._look_for, task.recipe)
        self._left |= {name: functools.partial(self._load, path, reference) for name, path, reference in named}
        self._names = {name: reference_name(reference) for name, _, reference in named}
        # What no module holds is made anew by each trial, but for what is to run once.
        self.by_value = {
            name for name, _, reference in named if isinstance(reference, ByValue) and name != "setup"
        }

    def load(
        self,
        skip: Collection[str] = (),
        around_each: Callable[[str], AbstractContextManager[None]] = lambda name: contextlib.nullcontext(),
    ) -> None:
        """Loads what is not loaded yet.

        Args:
            skip: Names of what to leave out: ``recipe``, ``callbacks.0``, ``trackers``, ``setup``.
            around_each: Returns a context to load one of them in, by its name.
        """
        use_import_paths([os.getcwd(), *self.task.import_paths])
        for name in [name for name in self._left if name not in skip]:
            with around_each(name):
                self._left.pop(name)()

    def note(self, name: str, reason: str) -> str:
        """Says why something is loaded by each trial, which the user may want to change."""
        return (
            f"{self._names.get(name, name)} {reason} when it is imported: the process that trials are forked from "
            "cannot import it, so each trial does; move what does that into the recipe"
        )

    def _import_torch(self) -> None:
        import torch
        import torch._dynamo  # the first optimizer of a process would

        from xaytune.trainer.random_state import seed_everything

        # Of what computes with more, the threads do not survive a fork.
        torch.set_num_threads(1)
        _warm_up()
        # A module may draw its data when it is imported: it is to be the same for all trials.
        seed_everything(self.task.seed)

    def _import_trial(self) -> None:
        import xaytune.trial.program.command_run
        import xaytune.trial.run.runner  # noqa: F401

    def _import_trackers(self) -> None:
        from xaytune.trial.trackers.tracking import tracker_problems

        # What they start when they are imported then belongs to this process, not to its first trial.
        os.environ.update(self.task.tracker_settings)
        self.problems += tracker_problems(self.task.trackers)

    def _look_for(self, command: Command) -> None:
        if (missing := what_is_missing(command)) is not None:
            self.problems.append(missing)

    def _load(self, path: ProblemPath, reference: Reference) -> None:
        problems = list(problems_of(path, reference, resolve))
        if problems and "SystemExit" in problems[0].message and (said := last_lines(2, 3)):
            problems = [dataclasses.replace(problems[0], message=f"{problems[0].message}; it printed: {said}")]
        if not problems and path == ("setup",):
            problems = self._set_up(reference)
        self.problems += problems

    def _set_up(self, setup: Reference) -> list[Problem]:
        try:
            self.shared = resolve(setup)()
        except (Exception, SystemExit) as error:
            return [Problem(("setup",), f"{reference_name(setup)} raised {type(error).__name__}: {error}")]
        return []


def _warm_up() -> None:
    """Trains a step, so that what the first one of a process takes is not taken in each trial."""
    import torch

    if torch.cuda.is_available():  # the threads of a backward pass on it would not survive a fork
        return
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()


def unforkable() -> str | None:
    """Says why this process cannot be forked any more; None if it can.

    What libraries do at the end of a process is no matter of its forks, and is left out there.
    """
    for info in list(weakref.finalize._registry.values()):  # type: ignore[attr-defined]
        info.atexit = False
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "uses the GPU"
    threads = count_threads() - 1
    return f"starts {threads} thread{'s' * (threads > 1)}" if threads else None


def installed_since(known: int, environment: Mapping[str, str]) -> Imported:
    """Returns the modules of installed packages that were imported since.

    Torch's own, whose parts start processes and threads when they are imported, are left out, and so is Ray, which
    reads its settings from the environment when it is imported.

    Args:
        known: How many modules there were. Only later ones are looked at: in a fork, each look copies a page.
        environment: As it was.
    """
    later = itertools.islice(reversed(sys.modules.items()), max(0, len(sys.modules) - known))
    names = [
        name
        for name, module in reversed(list(later))
        if name.partition(".")[0] not in ("ray", "torch", "triton")
        and str(getattr(module, "__file__", None)).startswith(_INSTALLED)
        and getattr(module, "__spec__", None) is not None
    ]
    changed = {name for name, _ in environment.items() ^ os.environ.items()}
    return Imported(names, {name: os.environ.get(name) for name in changed})


def import_installed(imported: Imported) -> None:
    """Imports what a trial did, as far as that is possible and leaves this process fit to be forked.

    That is tried in a fork before. Where a trial has changed the environment itself, nothing is imported: a
    package may read its settings there when it is imported, and the next trial may have others.
    """
    new = [name for name in imported.names if name not in sys.modules]
    if not new:
        return
    pid = os.fork()
    if pid == 0:
        _import_all(new)
        by_imports = all(os.environ.get(name) == value for name, value in imported.changed.items())
        os._exit(not by_imports or unforkable() is not None)
    if os.waitpid(pid, 0)[1] == 0:
        _import_all(new)
        unforkable()  # for what it leaves out of forks


def _import_all(names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
