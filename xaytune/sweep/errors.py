"""Problems of a spec; their home is :mod:`xaytune.errors`."""

from __future__ import annotations

from xaytune.errors import Path, Problem, SpecError, nearest

__all__ = ["Path", "Problem", "SpecError", "nearest"]
