"""What goes wrong between a client and a cluster."""

from __future__ import annotations

__all__ = ["ClusterError"]


class ClusterError(Exception):
    """A cluster cannot be reached, or refuses what it was asked for."""
