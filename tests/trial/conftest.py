from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xaytune.messages import Assignment, DecisionDue, Ended, Message, Progress, Refused, StopRequest, Task
from xaytune.sweep.objective import Objective
from xaytune.sweep.options import Reference
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trial.client.attempt import AttemptProcess
from xaytune.trial.client.template_client import Template
from xaytune.trial.common.output import file_of
from xaytune.trial.common.recipe import portable

Answer = Callable[[Progress], StopRequest | None]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: what it said to the driver, and what it printed."""

    messages: list[Message]
    output: str
    pid: int
    notes: tuple[str, ...]

    @property
    def ended(self) -> Ended:
        last = self.messages[-1]
        assert isinstance(last, Ended), last
        return last


class Node:
    """A template process, and trials of it."""

    def __init__(self, folder: Path, recipe: Reference = "tests.trial.recipes:train", **options: Any) -> None:
        points = DecisionPoints(milestones=())
        task = Task(
            sweep="s",
            sweep_id="1",
            sweep_dir=str(folder),
            remote=None,
            recipe=recipe,
            objective=Objective("score", "max"),
            seed=0,
            **{"points": points, "heartbeat_s": 0.2, **options},
        )
        self.task = portable(task)
        self.template = Template(self.task)

    def begin(
        self, folder: Path, recipe: str | None = None, config: dict[str, Any] | None = None, **options: Any
    ) -> AttemptProcess:
        """Starts a trial, with options of its task and of its assignment."""
        keys = {field.name for field in dataclasses.fields(Assignment)} & options.keys()
        own: dict[str, Any] = {"trial": 0, "seed": 7, **{key: options.pop(key) for key in keys}}
        named = self.task.recipe if recipe is None else f"tests.trial.recipes:{recipe}"
        task = dataclasses.replace(self.task, sweep_dir=str(folder), recipe=named, **options)
        return AttemptProcess(self.template, task, Assignment(config=config or {}, **own), dict(os.environ))

    def train(
        self,
        folder: Path,
        recipe: str | None = None,
        config: dict[str, Any] | None = None,
        answer: Answer | None = None,
        **options: Any,
    ) -> Outcome:
        """Trains a trial to its end; each decision is answered."""
        return finish(self.begin(folder, recipe, config, **options), folder, answer)


def finish(process: AttemptProcess, folder: Path, answer: Answer | None = None) -> Outcome:
    messages: list[Message] = []
    while not messages or not isinstance(messages[-1], (Ended, Refused)):
        messages.append(process.next_message(10))
        if answer is not None and isinstance(messages[-1], DecisionDue):
            request = answer(messages[-1])
            if request is not None:
                process.request_stop(request)
    process.close()
    output = folder / file_of(messages[-1].trial)
    return Outcome(messages, output.read_text() if output.exists() else "", process.pid, process.notes)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The template process that most tests share."""
    shared = Node(tmp_path_factory.mktemp("node"))
    yield shared
    shared.template.end()


@pytest.fixture
def new_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts template processes of a test's own."""
    nodes: list[Node] = []

    def start(recipe: Reference = "tests.trial.recipes:train", **options: Any) -> Node:
        nodes.append(Node(tmp_path, recipe, **options))
        return nodes[-1]

    yield start
    for one in nodes:
        one.template.end()


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str, str], Mapping[str, Any]]:
    """Writes a module, and returns the options of a node whose recipe it has."""

    def write(name: str, text: str) -> Mapping[str, Any]:
        (tmp_path / f"{name}.py").write_text(text)
        return {"recipe": f"{name}:train", "import_paths": (str(tmp_path),)}

    return write


def is_gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process ends in time; one that is dead and not waited for has."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False
