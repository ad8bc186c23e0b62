"""Hosts of a network on this machine: each has its own network, processes and host name, and shares the disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

# A node that says nothing is given up after seconds, not after a minute.
_HASTE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
_NODE = ["--object-store-memory=100000000", "--disable-usage-stats", "--block"]
_NAMESPACES = ["--net", "--pid", "--mount", "--uts", "--ipc"]


def wait_until(holds: Callable[[], object], seconds: float = 240, of: str = "") -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, of or "waited in vain"
        time.sleep(0.05)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Network:
    """A network of hosts on this machine, named by this process."""

    def __init__(self) -> None:
        self.name, self.prefix = f"xt{os.getpid() % 10000}", f"10.213.{os.getpid() % 250}"
        self.bridge, self.gateway = f"{self.name}br", f"{self.prefix}.254"
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def remove(self) -> None:
        """Takes it back."""
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


class Host:
    """A host of a network.

    Args:
        network: Names what is made of it, and begins its addresses.
        index: Its number, and the last of its address.
        folder: For files of its own.
        private: A folder that it does not share with the others.
    """

    def __init__(self, network: Network, index: int, folder: Path, private: Path | None = None) -> None:
        self.ip, self._link = f"{network.prefix}.{index}", f"{network.name}{index}"
        self._namespace = f"{network.name}-{index}"
        self._folder = folder / str(index)
        self._folder.mkdir()
        self.output = self._folder / "output.txt"
        run("ip", "netns", "add", self._namespace)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        run("ip", "link", "set", self._link, "master", network.bridge, "up")
        for arguments in (f"addr add {self.ip}/24 dev eth0", "link set lo up", "link set eth0 up"):
            run("ip", "-n", self._namespace, *arguments.split())
        run("ip", "-n", self._namespace, "route", "add", "default", "via", network.gateway)
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.ip} host{index}\n")
        (self._folder / "nsswitch.conf").write_text("hosts: files\n")  # no name server can be reached
        for path in (folder / "ray", self._folder / "ray"):  # Ray's sessions have one path on all nodes
            path.mkdir(exist_ok=True)
        mounts = [f"mount --bind {self._folder}/ray {folder}/ray"]
        mounts += [f"mount --bind {self._folder}/{name} /etc/{name}" for name in ("hosts", "nsswitch.conf")]
        mounts += [f"mount -t tmpfs tmpfs {path}" for path in ("/dev/shm", *([private] if private else []))]
        begun = self._folder / "begun"
        script = "\n".join(["set -e", *mounts, f"hostname host{index}", f"touch {begun}", "sleep infinity & wait"])
        unshare = [
            "unshare",
            *_NAMESPACES[1:],
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, *unshare, "bash", "-c", script], start_new_session=True
        )
        wait_until(begun.exists, 10)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._init = int(children.read_text().split()[0])

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a command there; what it prints goes to a file."""
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        known = {"PATH": path, "HOME": str(self._folder), "LANG": "C.UTF-8", **environment}
        enter = [
            "nsenter",
            "-t",
            str(self._init),
            f"--wd={Path.cwd()}",
            *_NAMESPACES,
            "env",
            "-i",
            *(f"{k}={v}" for k, v in known.items()),
        ]
        with self.output.open("ab") as output:
            return subprocess.Popen([*enter, *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def cut_off(self) -> None:
        """Takes the host off the network."""
        run("ip", "link", "set", self._link, "down")

    def kill(self) -> None:
        """Ends all of its processes at once."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Takes back all that was made."""
        self.kill()
        for command in (["ip", "link", "del", self._link], ["ip", "netns", "del", self._namespace]):
            subprocess.run(command, check=False, capture_output=True)


class RayHosts:
    """A Ray cluster, each of whose nodes is a host; it takes a token.

    Args:
        folder: For the files of the hosts: a short path, for Ray's sockets.
        token: What it takes.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token, self._network = folder, token, Network()
        self.private = folder / "private"  # of the second worker alone
        self.private.mkdir()
        self.workers: list[Host] = []
        self._hosts: list[Host] = []

    def start_head(self, *arguments: str, **environment: str) -> None:
        """Starts a head, on which no trial runs.

        Args:
            arguments: More of those of ``ray start``.
            environment: More of what it finds in its environment.
        """
        self.head = head = self._new_host(None)
        self.dashboard = f"http://{head.ip}:8265"
        self.address = f"{head.ip}:6379"
        dashboard = [f"--dashboard-host={head.ip}", "--dashboard-port=8265"]
        self._start(head, "--head", "--port=6379", "--num-cpus=0", *dashboard, *arguments, **environment)
        wait_until(lambda: _listens(head.ip, 6379) and _listens(head.ip, 8265))

    def start_worker(self, private: Path | None = None) -> Host:
        """Starts a node with one CPU."""
        worker = self._new_host(private)
        self.workers.append(worker)
        self._start(worker, f"--address={self.address}", "--num-cpus=1")
        return worker

    def alive(self) -> int:
        """Returns how many nodes the cluster has."""
        asked = urllib.request.Request(
            f"{self.dashboard}/nodes?view=summary", headers={"Authorization": f"Bearer {self._token}"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
            return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)
        return 0

    @property
    def environment(self) -> dict[str, str]:
        """What Ray is to find in the environment on all hosts."""
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_TMPDIR": str(self._folder / "ray")}
        return {**own, **_HASTE}

    def remove(self) -> None:
        """Ends the cluster, and takes back all that was made."""
        for host in self._hosts:
            host.remove()
        self._network.remove()

    def _new_host(self, private: Path | None) -> Host:
        host = Host(self._network, len(self._hosts) + 1, self._folder, private)
        self._hosts.append(host)
        return host

    def _start(self, host: Host, *arguments: str, **environment: str) -> None:
        ray = str(Path(sys.executable).parent / "ray")
        command = [ray, "start", *arguments, f"--node-ip-address={host.ip}", *_NODE]
        host.start(*command, **self.environment, **environment)


def _listens(ip: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((ip, port), timeout=1):
        return True
    return False


def skip_without_hosts() -> None:
    """Skips a test where no hosts can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} on this machine")
