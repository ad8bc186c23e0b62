"""What nodes a cluster's autoscaler may add: Ray does not tell, its command line names the file that does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ruamel.yaml import YAML

__all__ = ["addable_nodes"]

_YAML = YAML(typ="safe")
_CONFIG = "--autoscaling-config="


def addable_nodes() -> list[tuple[Mapping[str, float], int]]:
    """Returns what each type of node has that the cluster's autoscaler may add, and how many it may add of it.

    It is found where the driver runs beside it, on the head: there jobs run.
    """
    address = f"--gcs-address={ray.get_runtime_context().gcs_address}"
    for arguments in _command_lines():
        if address in arguments:
            for argument in arguments:
                if argument.startswith(_CONFIG):
                    with contextlib.suppress(OSError):  # it is not for us to read
                        return list(_workers(_YAML.load(Path(argument.removeprefix(_CONFIG)).expanduser())))
    return []


def _command_lines() -> Iterator[list[str]]:
    """The command lines of the processes on this machine."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended, or is not ours
            yield file.read_text(errors="replace").split("\0")


def _workers(config: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, float], int]]:
    in_all = config.get("max_workers", 0)
    for name, node_type in config.get("available_node_types", {}).items():
        count = min(in_all, node_type.get("max_workers", in_all))
        if name != config.get("head_node_type") and count > 0:
            yield node_type.get("resources", {}), count
