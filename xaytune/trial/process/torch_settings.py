"""The settings of torch that a recipe may change, for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn


def read() -> tuple[Any, ...]:
    """Returns the settings as they are."""
    return tuple(get() for get, _ in _SETTINGS)


def write(settings: tuple[Any, ...]) -> None:
    """Makes the settings what they were when they were read."""
    for (get, set), setting in zip(_SETTINGS, settings, strict=True):
        if get() != setting:
            set(setting)


def _get_matmul_precision() -> str | list[str]:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set for one device, by the interface of torch 2.9
        return [device.matmul.fp32_precision for device in (cuda, mkldnn)]


def _set_matmul_precision(precision: str | list[str]) -> None:
    if isinstance(precision, str):
        torch.set_float32_matmul_precision(precision)
        return
    for device, own in zip((cuda, mkldnn), precision, strict=True):
        device.matmul.fp32_precision = own


_DEVICES = ("cpu", "cuda")
_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (_get_matmul_precision, _set_matmul_precision),
    *((partial(torch.is_autocast_enabled, d), partial(torch.set_autocast_enabled, d)) for d in _DEVICES),
    *((partial(torch.get_autocast_dtype, d), partial(torch.set_autocast_dtype, d)) for d in _DEVICES),
    *((partial(getattr, cudnn, f), partial(setattr, cudnn, f)) for f in ("enabled", "benchmark", "deterministic")),
]
