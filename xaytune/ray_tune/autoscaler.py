"""What nodes a cluster's autoscaler may add: Ray does not tell, its command line names the file that does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ruamel.yaml import YAML

_YAML = YAML(typ="safe")
_CONFIG = "--autoscaling-config="


class AddableNodes(NamedTuple):
    """The nodes beside the head that a cluster's autoscaler may add.

    Attributes:
        nodes: What each has; of each type as many as there may be of it.
        limit: How many there may be in all.
    """

    nodes: Sequence[Mapping[str, float]] = ()
    limit: int = 0

    def most(self, name: str) -> float:
        """Returns how much of a resource they may have together."""
        amounts = sorted((node.get(name, 0.0) for node in self.nodes), reverse=True)
        return sum(amounts[: self.limit])


def addable_nodes() -> AddableNodes:
    """Returns what the cluster's autoscaler may add; nothing where there is none.

    It is found where the driver runs beside it, on the head: there jobs run.
    """
    address = f"--gcs-address={ray.get_runtime_context().gcs_address}"
    for arguments in _command_lines():
        if address in arguments:
            for argument in arguments:
                if argument.startswith(_CONFIG):
                    with contextlib.suppress(OSError):  # it is not for us to read
                        return _workers(_YAML.load(Path(argument.removeprefix(_CONFIG)).expanduser()))
    return AddableNodes()


def _command_lines() -> Iterator[list[str]]:
    """The command lines of the processes on this machine."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended, or is not ours
            yield file.read_text(errors="replace").split("\0")


def _workers(config: Mapping[str, Any]) -> AddableNodes:
    limit = config.get("max_workers", 0)
    nodes: list[Mapping[str, float]] = []
    for name, node_type in config.get("available_node_types", {}).items():
        if name != config.get("head_node_type"):
            nodes += [node_type.get("resources", {})] * min(limit, node_type.get("max_workers", limit))
    return AddableNodes(nodes, limit)
