"""Settings of this process that are put back: variables of its environment, levels of loggers, attributes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Sets variables of the environment while the context lasts; one that is None is not there."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def log_level(level: int, *names: str) -> Iterator[None]:
    """Sets the level of loggers while the context lasts."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, its in zip(loggers, before, strict=True):
            logger.setLevel(its)


@contextmanager
def attribute(of: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute while the context lasts, such as a function of a module."""
    before = getattr(of, name)
    setattr(of, name, value)
    try:
        yield
    finally:
        setattr(of, name, before)
