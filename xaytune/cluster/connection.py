"""The connection to a cluster: where its Jobs API is, whether it takes our token, and what it runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import platform
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.dashboard.modules import dashboard_sdk
from ray.dashboard.modules.job import sdk as job_sdk
from ray.job_submission import JobSubmissionClient

from xaytune.cluster.tunnel import tunnel
from xaytune.errors import ClusterError
from xaytune.ray_tune.process_settings import environment, log_level

_DASHBOARD_PORT = 8265
# A cluster that has not answered by then is taken to be gone.
_ANSWER_S = 10.0


@dataclass(frozen=True)
class Connection:
    """A cluster that was reached.

    Attributes:
        name: What its user knows it by.
        options: Those of a command by which it is reached.
        url: Of its dashboard, which serves the Jobs API.
        jobs: Ray's client of that.
        headers: What each request carries.
    """

    name: str
    options: str
    url: str
    jobs: JobSubmissionClient
    headers: dict[str, str]

    def get(self, path: str) -> Any:
        """Returns what the cluster's HTTP interface answers, within seconds.

        Raises:
            ClusterError: It does not answer, or refuses.
        """
        return _get(self.name, self.url + path, self.headers)


@contextlib.contextmanager
def connected(address: str | None, file: Path | None) -> Iterator[Connection]:
    """Connects to a cluster.

    Args:
        address: Of its dashboard, ``http://HEAD:8265``; by default what RAY_ADDRESS says.
        file: Instead of an address: the cluster's YAML file, as ``ray up`` takes it.

    Raises:
        ClusterError: It cannot be reached, does not take our token, or runs another Ray or Python.
    """
    if address is not None and file is not None:
        raise ClusterError("name the cluster by --address or by --cluster, not by both")
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_level(logging.ERROR, "ray", dashboard_sdk.__name__, job_sdk.__name__))
        if file is not None:
            name, options = str(file), f" --cluster {shlex.quote(str(file))}"
            url = f"http://127.0.0.1:{stack.enter_context(tunnel(file, _DASHBOARD_PORT))}"
        else:
            name = url = _url(address or os.environ.get("RAY_ADDRESS"))
            options = f" --address {shlex.quote(url)}"
        headers = _headers(name, url)
        _check_versions(name, url, headers)
        with environment(RAY_ADDRESS=None, RAY_API_SERVER_ADDRESS=None):  # each would replace the address
            client = JobSubmissionClient(url, headers=headers)
        yield Connection(name, options, url, client, headers)


def _url(address: str | None) -> str:
    """Returns the URL of the dashboard at an address."""
    if address is None:
        raise ClusterError(
            "no cluster is named: give --address http://HEAD:8265 or --cluster cluster.yaml, or set RAY_ADDRESS"
        )
    if address == "auto":
        return f"http://127.0.0.1:{_DASHBOARD_PORT}"
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
    except ValueError as error:
        raise ClusterError(f"{address} is no address: {error}; give http://HEAD:{_DASHBOARD_PORT}") from None
    if parts.scheme not in ("http", "https"):
        raise ClusterError(
            f"sweeps are launched through the cluster's dashboard: give http://{parts.hostname}:{_DASHBOARD_PORT} "
            f"(got {address})"
        )
    return f"{parts.scheme}://{parts.netloc}".rstrip("/")


def _headers(name: str, url: str) -> dict[str, str]:
    """Returns what shows a cluster that we may use it."""
    if _get(name, f"{url}/api/authentication_mode", {}, {}).get("authentication_mode") != "token":
        return {}
    try:
        token = AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True)
    except Exception as error:
        raise ClusterError(f"the token of the cluster at {name} is missing: {error}") from None
    if not token:
        raise ClusterError(
            f"the cluster at {name} asks for a token, and there is none: set RAY_AUTH_TOKEN, or put the cluster's "
            "into ~/.ray/auth_token (`ray get-auth-token` prints it there)"
        )
    return {"Authorization": f"Bearer {token}"}


def _check_versions(name: str, url: str, headers: dict[str, str]) -> None:
    version = _get(name, f"{url}/api/version", headers).get("ray_version", "of another kind")
    cluster = _get(name, f"{url}/api/v0/cluster_metadata", headers, {"data": {}})["data"]
    theirs = cluster.get("rayVersion", version), _minor(cluster.get("pythonVersion", "unknown"))
    ours = ray.__version__, _minor(platform.python_version())
    if theirs != ours:
        raise ClusterError(
            f"the cluster at {name} runs Ray {theirs[0]} with Python {theirs[1]}, this is Ray {ours[0]} with "
            f"Python {ours[1]}: use the same in both places"
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _get(name: str, url: str, headers: dict[str, str], missing: Any = None) -> Any:
    """Returns what a URL answers; `missing`, if that is something, where it does not know the path."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_ANSWER_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ClusterError(
                f"the cluster at {name} does not take this token: use the one that it was "
                "started with (RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token)"
            ) from None
        if error.code == 404 and missing is not None:
            return missing
        cause = f"HTTP status {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = "it speaks no HTTP" if isinstance(error, http.client.HTTPException) else _reason(error)
    raise ClusterError(
        f"no Ray dashboard answers at {name} ({cause}): is the cluster up, and is this the address of its head's "
        f"dashboard (port {_DASHBOARD_PORT})? On a node of the cluster, `xaytune run` and `xaytune resume` "
        "take RAY_ADDRESS=HEAD:6379"
    )
