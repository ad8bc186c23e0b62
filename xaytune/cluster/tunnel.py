"""A way to the dashboard of a cluster that ``ray up`` made: it listens on the head alone, which ssh reaches."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.autoscaler.sdk import bootstrap_config, get_head_node_ip
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from xaytune.errors import ClusterError

_CONNECT_S = 20
_AGAIN_S = 1.0
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(_CONNECT_S),
    "ExitOnForwardFailure": "yes",
    "IdentitiesOnly": "yes",
    "LogLevel": "ERROR",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
    # Machines of a cloud come and go, and so do their keys: as `ray up` has it.
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": os.devnull,
}


@contextlib.contextmanager
def tunnel(file: Path, port: int) -> Iterator[int]:
    """Forwards a port of the head of a cluster to this machine while the context lasts.

    Args:
        file: The cluster's YAML file.
        port: On the head.

    Returns:
        The port on this machine.

    Raises:
        ClusterError: There is no such cluster, or ssh does not get there.
    """
    config = _read(file)
    head, here = _head_of(file, config), _free_port()
    command = _ssh(config["auth"], head, f"127.0.0.1:{here}:localhost:{port}")
    ssh = _open(command)
    try:
        _wait(ssh, here, head)
    except BaseException:  # an interrupt too: ssh does not hear of it
        ssh.terminate()
        ssh.wait()
        raise
    closing = threading.Event()
    keeper = threading.Thread(target=_keep, args=(ssh, command, closing), name="tunnel", daemon=True)
    keeper.start()
    try:
        yield here
    finally:
        closing.set()
        keeper.join()


def _open(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError as error:
        raise ClusterError(f"ssh cannot be started: {error.strerror}; it is what reaches the head") from None


def _keep(ssh: subprocess.Popen[str], command: list[str], closing: threading.Event) -> None:
    """Opens a tunnel again whenever it was cut, and closes it in the end."""
    while not closing.wait(_AGAIN_S):
        if ssh.poll() is not None:
            ssh = _open(command)
    ssh.terminate()
    ssh.communicate()


def _read(file: Path) -> dict[str, Any]:
    try:
        config = YAML(typ="safe").load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except YAMLError as error:
        raise ClusterError(f"{file} is no YAML: {error}") from None
    provider = config.get("provider") if isinstance(config, dict) else None
    if not isinstance(provider, dict) or "type" not in provider:
        raise ClusterError(f"{file} is no cluster file: it has no `provider` with a `type`")
    if provider["type"] == "local" and not (provider.get("external_head_ip") or provider.get("head_ip")):
        raise ClusterError(f"{file} does not say where its head is: provider.head_ip is missing")
    return {**config, "auth": config.get("auth") or {}}


def _head_of(file: Path, config: dict[str, Any]) -> str:
    """Returns the address of the head; fills in what only the provider knows of how to get there."""
    provider = config["provider"]
    if provider["type"] == "local":  # Ray knows such a cluster only where it was made
        return str(provider.get("external_head_ip") or provider["head_ip"])
    try:
        config["auth"] = bootstrap_config(config)["auth"]
        return str(get_head_node_ip(str(file)))
    except Exception as error:
        raise ClusterError(
            f"the head of {file} was not found: {error}; is the cluster up (`ray up {file}`)?"
        ) from None


def _ssh(auth: dict[str, Any], head: str, forward: str) -> list[str]:
    options = dict(_OPTIONS)
    if auth.get("ssh_proxy_command"):
        options["ProxyCommand"] = auth["ssh_proxy_command"]
    key = ["-i", os.path.expanduser(auth["ssh_private_key"])] if auth.get("ssh_private_key") else []
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return ["ssh", "-N", *given, *key, "-L", forward, f"{auth.get('ssh_user', 'ubuntu')}@{head}"]


def _wait(ssh: subprocess.Popen[str], port: int, head: str) -> None:
    """Waits until a tunnel is open."""
    while ssh.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    _, said = ssh.communicate()
    raise ClusterError(f"ssh does not get to the head of the cluster, {head}: {said.strip()}")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
