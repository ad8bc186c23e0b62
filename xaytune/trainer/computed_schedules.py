"""Learning rate schedules that only compute: they look at no model, and draw no random numbers."""

from __future__ import annotations

import functools
import math
import types
from typing import Any, Final

from torch.optim.lr_scheduler import LambdaLR, MultiplicativeLR

from xaytune.trainer.reach import content_of

_OF_TORCH: Final = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")
_NUMBERS: Final = (type(None), bool, int, float, str)
_BUILT_IN: Final = (abs, float, int, len, max, min, pow, round, sum)
_FUNCTIONS: Final = {"math": math, **vars(math), **{function.__name__: function for function in _BUILT_IN}}


def only_computes(scheduler: Any) -> bool:
    """Whether a scheduler is torch's own, and the functions that it was given only compute with numbers."""
    if scheduler is None:
        return True
    if type(scheduler).__module__ not in _OF_TORCH:
        return False
    functions = list(scheduler.lr_lambdas) if isinstance(scheduler, (LambdaLR, MultiplicativeLR)) else []
    if (scale := getattr(scheduler, "_scale_fn_custom", None)) is not None:  # of CyclicLR
        functions.append(scale)
    return all(map(_is_arithmetic, functions)) and all(map(only_computes, getattr(scheduler, "_schedulers", ())))


def _is_arithmetic(value: Any) -> bool:
    if isinstance(value, _NUMBERS):
        return True
    if isinstance(value, (tuple, list)):
        return all(map(_is_arithmetic, value))
    if isinstance(value, functools.partial):
        return all(map(_is_arithmetic, (value.func, *value.args, *value.keywords.values())))
    if not isinstance(value, types.FunctionType):
        return False
    names = value.__code__.co_names
    known = all(value.__globals__.get(name, _FUNCTIONS.get(name)) is _FUNCTIONS.get(name) for name in names)
    held = [*map(content_of, value.__closure__ or ()), value.__defaults__, *(value.__kwdefaults__ or {}).values()]
    held = [part for part in held if part is not value]
    return known and set(names) <= _FUNCTIONS.keys() and all(map(_is_arithmetic, held))
