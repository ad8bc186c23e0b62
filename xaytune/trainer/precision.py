"""Numeric precision of a run: autocast, and scaled gradients where half precision needs them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Precision", "PrecisionName"]

PrecisionName = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Runs forward passes, backward passes and optimizer steps in the given precision.

    ``fp16`` scales the loss so that small gradients do not vanish (Micikevicius et al., "Mixed precision
    training", 2018); an optimizer step whose gradients overflowed is skipped, as GradScaler does it.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        if name != "fp32" and name not in _DTYPES:
            raise ValueError(f"precision must be 'fp32', 'bf16' or 'fp16' (got {name!r})")
        self._dtype = _DTYPES.get(name)
        self._device_type = device.type
        self._scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Runs the backward pass of a loss (0-d)."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module, clip_grad_norm: float | None) -> Tensor:
        """Steps the optimizer and returns the norm of all gradients (0-d, on their device), before clipping."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        parameters = [p for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_grad_norm, norm)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the gradient scaler; empty where there is none."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
