"""Values that a configuration may refer to."""

from __future__ import annotations

import enum


class Optimizer(enum.Enum):
    SGD = 1
    ADAM = 2


class Rate(float, enum.Enum):
    LOW = 0.1


class Model:
    class Block:
        pass

    @staticmethod
    def build() -> None: ...


def scale(x: float) -> float:
    return x
