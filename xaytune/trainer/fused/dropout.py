"""Dropout in a program for many members: the masks are drawn before, from each member's own generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Mask(NamedTuple):
    """A mask that a forward pass needs.

    Attributes:
        layer: Number of the dropout layer.
        shape: Of its input.
        dtype: Of its input.
    """

    layer: int
    shape: torch.Size
    dtype: torch.dtype


class Masks:
    """The dropout layers of a model, made to use masks that are given to them.

    Args:
        model: A copy of a member's model, which is changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [module for module in model.modules() if type(module) is nn.Dropout]
        self.needed: list[Mask] | None = None  # while they are being learned
        self._given: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            layer.__class__ = _Masked
            layer.masks, layer.number = self, number  # type: ignore[assignment]

    def give(self, masks: Sequence[Tensor]) -> None:
        """Stores the masks of the next forward pass, in the order in which its layers use them."""
        self._given = list(masks)

    def use(self, layer: int, input: Tensor) -> Tensor:
        """Returns the output of a layer, or notes the mask that it needs while these are being learned."""
        if self.needed is not None:
            if not input.is_contiguous():
                raise RuntimeError("the input of a dropout layer is not contiguous")
            self.needed.append(Mask(layer, input.shape, input.dtype))
            return input
        return input * self._given.pop(0)

    def draw(
        self, needed: Sequence[Mask], drops: Sequence[Sequence[float]], generators: Sequence[torch.Generator]
    ) -> list[Tensor]:
        """Draws masks (members, *shape) as ``torch.nn.functional.dropout`` would, each member's in their order.

        Args:
            needed: The masks.
            drops: Probabilities of each member by layer.
            generators: Of each member.
        """
        device = generators[0].device
        masks = [torch.ones(len(drops), *mask.shape, dtype=mask.dtype, device=device) for mask in needed]
        for member, (probabilities, generator) in enumerate(zip(drops, generators, strict=True)):
            for mask, tensor in zip(needed, masks, strict=True):
                p = probabilities[mask.layer]
                if p == 1.0:
                    tensor[member].zero_()
                elif p != 0.0 and device.type == "cuda" and not self.layers[mask.layer].inplace:
                    # The kernel of dropout there: it draws several numbers at once, as bernoulli_ does not.
                    ones = torch.ones(mask.shape, dtype=mask.dtype, device=device)
                    tensor[member].copy_(torch._fused_dropout(ones, 1.0 - p, generator=generator)[0])
                elif p != 0.0:
                    tensor[member].bernoulli_(1.0 - p, generator=generator).div_(1.0 - p)
        return masks


class _Masked(nn.Dropout):
    """A dropout layer that uses a mask which was drawn before."""

    masks: Masks
    number: int

    def forward(self, input: Tensor) -> Tensor:
        """Returns the input where it was not dropped, scaled."""
        return self.masks.use(self.number, input) if self.training else input


def probabilities(model: nn.Module) -> list[float]:
    """Returns the probabilities of a model's dropout layers."""
    return [module.p for module in model.modules() if type(module) is nn.Dropout]
