"""What a journal was written by: versions of packages, and the commit of the code that was run."""

from __future__ import annotations

import functools
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("xaytune", "ray", "torch", "optuna")


def versions(folder: Path) -> dict[str, str]:
    """Returns the versions of what decides how a sweep goes.

    Args:
        folder: Where the sweep is run from.

    Returns:
        By name: ``python``, the packages that are installed, and ``commit``, if the folder is in a git repository.
    """
    commit = commit_of(folder)
    return {**_installed(), **({} if commit is None else {"commit": commit})}


@functools.cache
def _installed() -> dict[str, str]:
    """The versions of python and the packages; to read them takes 10 ms."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit_of(folder: Path) -> str | None:
    """Returns the commit that a folder's git repository is at, without running git; None if there is none."""
    try:
        root = next(parent for parent in (folder, *folder.parents) if (parent / ".git").exists())
        git = root / ".git"
        if git.is_file():  # a worktree
            git = root / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        reference = head.removeprefix("ref:").strip()
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        if (common / reference).exists():
            return (common / reference).read_text().strip()
        packed = (common / "packed-refs").read_text().splitlines()
        return next(line.split()[0] for line in packed if line.endswith(f" {reference}"))
    except (OSError, StopIteration, UnicodeDecodeError):
        return None
