"""Numeric precision of a run: autocast, and scaled gradients where half precision needs them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

PrecisionName = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Runs forward passes, backward passes and optimizer steps in the given precision.

    ``fp16`` scales the loss so that small gradients do not vanish (Micikevicius et al., "Mixed precision
    training", 2018); an optimizer step whose gradients overflowed is skipped, as GradScaler does it.

    Attributes:
        name: The precision.
    """

    def __init__(self, name: PrecisionName, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        if name != "fp32" and name not in _DTYPES:
            raise ValueError(f"precision must be 'fp32', 'bf16' or 'fp16' (got {name!r})")
        self.name = name
        self._dtype = _DTYPES.get(name)
        self._device_type = device.type
        self._optimizer = optimizer
        self._scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        self._stepped = False
        if self._scaler is not None:
            optimizer.register_step_post_hook(self._note_step)

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Runs the backward pass of a loss (0-d)."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def unscale(self) -> None:
        """Makes the gradients those of the loss as it is."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)

    def step(self) -> bool:
        """Steps the optimizer, and tells whether it did: gradients that are not finite are skipped with fp16."""
        scaler = self._scaler
        if scaler is None:
            self._optimizer.step()
            return True
        self._stepped = False
        # An optimizer that skips by itself, on the device (a fused one), tells by the scale that falls.
        skips_itself = getattr(self._optimizer, "_step_supports_amp_scaling", False)
        before = scaler.get_scale() if skips_itself else 0.0
        scaler.step(self._optimizer)
        scaler.update()
        return self._stepped and (not skips_itself or scaler.get_scale() >= before)

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the gradient scaler; empty where there is none."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
