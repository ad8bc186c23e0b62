"""Gradients of a Trainer's steps by CUDA graphs: forward and backward passes, the norm and the clipping.

The optimizer steps as usual, so that it may be any, with rates that change.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from xaytune.trainer.batches import signature, to_device
from xaytune.trainer.graphs import Computed, Graphs
from xaytune.trainer.tolerance import tolerance

if TYPE_CHECKING:
    from xaytune.trainer.step import Step, Stepper

logger = logging.getLogger(__name__)

# The first steps of a kind also load what is loaded late: kernels, and the workspaces of libraries.
_AFTER: Final = 3
_PLAIN: Final = (bool, int, float, str, type(None))


class GraphedSteps:
    """Computes the gradients of steps, those that are alike by a graph.

    Args:
        stepper: Computes them as usual.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._graphs = Graphs(stepper.device, logger.warning, _AFTER)
        self._modules = [vars(module) for module in stepper.model.modules()]
        if stepper.precision.name == "fp16":
            self._graphs.refuse("fp16 scales the loss by what steps give: use bf16")

    def __call__(self, step: Step) -> dict[str, Any]:
        """Returns what ``stepper.gradients(step)`` returns; the gradients are where that leaves them."""
        stepper = self._stepper
        if self._graphs.refused:
            return stepper.gradients(step)
        batches = [to_device(batch, stepper.device) for batch in step.batches]
        flat, structure = tree_flatten(batches)
        odd = next((leaf for leaf in flat if not isinstance(leaf, (Tensor, *_PLAIN))), None)
        if odd is not None:
            self._graphs.refuse(f"a batch holds a {type(odd).__name__}")
            return stepper.gradients(step._replace(batches=iter(batches)))
        places = [at for at, leaf in enumerate(flat) if isinstance(leaf, Tensor)]
        parameters = [p for group in stepper.optimizer.param_groups for p in group["params"]]
        parameters = list(dict.fromkeys([*parameters, *stepper.model.parameters()]))

        def compute(inputs: Sequence[Tensor]) -> Computed:
            leaves = list(flat)
            for place, tensor in zip(places, inputs, strict=True):
                leaves[place] = tensor
            window = iter(tree_unflatten(leaves, structure))
            metrics = stepper.gradients(step._replace(batches=window))
            return Computed(metrics, [p.grad for p in parameters])

        computed = self._graphs.run(
            (tuple(map(signature, batches)), step.expected, self._now(parameters)),
            compute,
            [flat[place] for place in places],
            list(stepper.model.buffers()),
            tolerance(parameters[0].dtype, stepper.precision),
        )
        for parameter, gradient in zip(parameters, computed.kept, strict=True):
            parameter.grad = gradient
        return computed.values

    def _now(self, parameters: Sequence[Tensor]) -> tuple[Any, ...]:
        """Returns what a graph would not see if it changed: where tensors are, modes, and options of modules."""
        tensors = [*parameters, *self._stepper.model.buffers()]
        places = tuple([(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors])
        options = tuple([v for attributes in self._modules for v in attributes.values() if type(v) in _PLAIN])
        return places, options, tuple([len(group["params"]) for group in self._stepper.optimizer.param_groups])
