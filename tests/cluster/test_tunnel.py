"""The way to a cluster through ssh, with a real sshd on a host of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, Network, skip_without_hosts, wait_until
from xaytune.cluster.tunnel import tunnel
from xaytune.errors import ClusterError

SSHD = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/id.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
"""
PORT = 8265


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Host]:
    """A host with an sshd, and with something to reach that listens on the host alone."""
    skip_without_hosts()
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd on this machine")
    for key in ("id", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    (tmp_path / "sshd_config").write_text(SSHD.format(folder=tmp_path))
    (tmp_path / "hosts").mkdir()
    network = Network()
    host = Host(network, 1, tmp_path / "hosts")
    try:
        host.start("sh", "-c", f"mkdir -p /run/sshd && exec {sshd} -D -e -f {tmp_path}/sshd_config")
        host.start(sys.executable, "-m", "http.server", str(PORT), "--bind", "127.0.0.1")
        yield host
    finally:
        host.remove()
        network.remove()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ssh_to(host: Host) -> list[int]:
    """The processes of ssh that lead to a host."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0] == b"ssh" and f"root@{host.ip}".encode() in arguments:
            found.append(int(file.parent.name))
    return found


def test_the_way_to_a_cluster_is_opened_again_when_it_is_cut_and_closed_in_the_end(
    head: Host, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        f"provider: {{type: local, head_ip: {head.ip}}}\n"
        f"auth: {{ssh_user: root, ssh_private_key: {tmp_path}/id}}\n"
    )

    def is_open() -> bool:
        try:
            with tunnel(file, PORT):
                return True
        except ClusterError:
            return False

    wait_until(is_open, of="sshd did not start")
    with tunnel(file, PORT) as port:
        wait_until(lambda: answers(port))
        (ssh,) = ssh_to(head)
        os.kill(ssh, signal.SIGKILL)
        wait_until(lambda: ssh_to(head) not in ([], [ssh]) and answers(port), of="it was not opened again")
    assert ssh_to(head) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("provider: {type: local}", "provider.head_ip is missing"),
        ("provider: local", "is no cluster file: it has no `provider` with a `type`"),
        ("[", "is no YAML"),
        (
            "provider: {type: local, head_ip: 127.0.0.1}\nauth:",
            "ssh does not get to the head of the cluster|ssh cannot be started",
        ),
    ],
)
def test_a_file_that_leads_to_no_cluster_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ClusterError, match=told), tunnel(tmp_path / "cluster.yaml", PORT):
        pass
