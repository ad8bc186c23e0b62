"""Masks that are drawn for many members are those that each one's own dropout would draw."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaytune.trainer.fused.dropout import Mask, Masks

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (64, 128), (2, 1000, 7)], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_masks_are_those_of_dropout_for_each_member(
    inplace: bool, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    drops = [[0.3, 0.0], [0.3, 0.5], [1.0, 0.1]]
    masks = Masks(nn.Sequential(nn.Dropout(inplace=inplace), nn.Dropout(inplace=inplace)))
    needed = [
        Mask(0, torch.Size(shape), dtype),
        Mask(1, torch.Size((5,)), dtype),
        Mask(0, torch.Size(shape), dtype),
    ]
    generators = [torch.Generator(device).manual_seed(member) for member in range(3)]
    drawn = masks.draw(needed, drops, generators)
    for member, probabilities in enumerate(drops):
        torch.manual_seed(member)
        for mask, given in zip(needed, drawn, strict=True):
            ones = torch.ones(mask.shape, dtype=dtype, device=device)
            right = F.dropout(ones, probabilities[mask.layer], inplace=inplace)
            torch.testing.assert_close(given[member], right)
