"""What is shipped to a cluster: the working directory, which Ray limits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from xaytune.errors import ClusterError
from xaytune.ray_tune.compat import (
    DASHBOARD_CLIENT_MAX_SIZE,
    _dir_travel,
    _get_excludes,
    get_runtime_env_default_excludes,
)

# Of the working directory: sweeps that ran here.
EXCLUDED = ["/runs"]
_MIB = 2**20
_SHOWN = 3


def check_size(folder: Path) -> None:
    """Checks that a working directory is not too large to be shipped, before it is read.

    Raises:
        ClusterError: It is.
    """
    sizes: Counter[str] = Counter()

    def weigh(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    excludes = [_get_excludes(folder, [*get_runtime_env_default_excludes(), *EXCLUDED])]
    try:
        _dir_travel(folder, excludes, weigh, include_gitignore=True)
    except OSError as error:
        raise ClusterError(
            f"{error.filename} cannot be shipped: {error.strerror}; name it in .rayignore if it is not needed"
        ) from None
    if sizes.total() > DASHBOARD_CLIENT_MAX_SIZE:
        most = [(name, size / _MIB) for name, size in sizes.most_common(_SHOWN) if size >= _MIB]
        largest = ", ".join(f"{name} {mib:.0f} MiB" for name, mib in most)
        raise ClusterError(
            f"the working directory {folder} is too large to be shipped: {sizes.total() / _MIB:.0f} MiB, of "
            f"{DASHBOARD_CLIENT_MAX_SIZE / _MIB:.0f} at most (largest: {largest}); name in .gitignore or "
            ".rayignore what the sweep does not need, and keep data in a storage that the nodes reach"
        )
