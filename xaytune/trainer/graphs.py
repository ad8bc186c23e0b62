"""Graphs of a device: a computation is recorded once, and then launched as a whole, without its Python.

With small models nearly all of a step is Python and the launching of kernels, which a CUDA graph does once. It
computes on the memory that it was recorded on: inputs are copied there, and outputs are found there. Numbers that
Python had when it was recorded stay as they were: so what a graph gives is compared, now and then, with what is
computed as usual, and one that gives anything else is used no more.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from xaytune.trainer import random_state
from xaytune.trainer.tolerance import distance, is_compared

# A graph keeps the memory of all that it computes: of more, the one that was not used for longest goes.
_MOST: Final = 8
# Kinds that are not recorded and kept in mind, at most: they may be different each time.
_MOST_SEEN: Final = 128


class Computed(NamedTuple):
    """What a computation gives.

    Attributes:
        values: Tensors and other values, by name.
        kept: More tensors, which the next computation may overwrite.
    """

    values: dict[str, Any]
    kept: Sequence[Tensor | None] = ()


Compute = Callable[[Sequence[Tensor]], Computed]


def is_recorded(device: torch.device) -> bool:
    """Whether what is computed on a device can be recorded, which makes it faster."""
    return device.type == "cuda"


def _record(compute: Callable[[], Computed], device: torch.device) -> Callable[[], Computed]:
    """Records a computation, without computing anything; returns what repeats it."""
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[device.index or 0]
    try:
        # What other threads do meanwhile, such as pinning memory, is no matter of this one's graph.
        recording = torch.cuda.graph(graph, stream=torch.cuda.Stream(device), capture_error_mode="thread_local")
        with torch.cuda.device(device), recording:
            computed = compute()
    except BaseException:
        generator.graphsafe_set_state(generator.clone_state())  # else it believes that it is recorded still
        raise

    def repeat() -> Computed:
        graph.replay()
        return computed

    return repeat


@contextlib.contextmanager
def _without_waiting(device: torch.device) -> Iterator[None]:
    """Lets what waits for a value of the device raise: it cannot be recorded."""
    if not is_recorded(device):
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@dataclass
class _Graph:
    """A computation that was recorded.

    Attributes:
        inputs: What it reads.
        repeat: Computes it again.
        uses: How often it was.
    """

    inputs: list[Tensor]
    repeat: Callable[[], Computed]
    uses: int = 0


class Graphs:
    """Computes on a device, what comes often as a graph. On a CPU it is repeated instead, for nothing is recorded.

    Args:
        device: The device.
        tell: Called with a line, once, where computations cannot be recorded.
        after: How often a kind of computation comes before it is recorded.

    Attributes:
        refused: Whether all is computed as usual.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None], after: int) -> None:
        self._device, self._tell, self._after = device, tell, after
        self._seen: Counter[Hashable] = Counter()  # kinds that are not recorded
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()  # the one that was used last is the last
        self.refused = False

    def run(
        self,
        kind: Hashable,
        compute: Compute,
        inputs: Sequence[Tensor],
        state: Sequence[Tensor],
        tolerance: float,
    ) -> Computed:
        """Computes.

        Args:
            kind: What must be the same for a graph to be the same: of two computations of one kind nothing differs
                but the numbers in `inputs`, and in tensors that keep their places in memory.
            compute: The computation.
            inputs: What it is given, tensors on the device.
            state: The tensors among the latter that it changes.
            tolerance: How far what a graph gives may be from what is computed as usual, in its size.

        Returns:
            What `compute` returns.

        Raises:
            Exception: What `compute` raises.
        """
        graph = self._graphs.get(kind) or self._recorded(kind, compute, inputs, state)
        if graph is None:
            return compute(inputs)
        self._graphs.move_to_end(kind)
        torch._foreach_copy_(graph.inputs, list(inputs))
        graph.uses += 1
        if is_compared(graph.uses):
            return self._compare(graph.repeat, compute, inputs, state, tolerance)
        return _own(graph.repeat())

    def refuse(self, why: str) -> None:
        """Computes all as usual from now on."""
        self.refused = True
        self._graphs.clear()
        self._tell(f"steps are not recorded as CUDA graphs: {why}")

    def _recorded(
        self, kind: Hashable, compute: Compute, inputs: Sequence[Tensor], state: Sequence[Tensor]
    ) -> _Graph | None:
        """Records a computation, if it comes often and that is possible."""
        if self.refused:
            return None
        self._seen[kind] += 1
        if self._seen[kind] <= self._after:
            self._forget()
            return None
        own = [tensor.clone() for tensor in inputs]
        with _undone(state):
            drawn = _drawn_on_the_host(self._device)
            try:
                with _without_waiting(self._device):  # a recording that fails may leave the device in disorder
                    compute(own)
                if is_recorded(self._device):
                    graph = _Graph(own, _record(lambda: compute(own), self._device))
                else:
                    graph = _Graph(own, lambda: compute(own))
            except Exception as error:
                self.refuse(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
                return None
            if _drawn_on_the_host(self._device) != drawn:
                self.refuse("they draw random numbers on the host")
                return None
        del self._seen[kind]
        self._graphs[kind] = graph
        if len(self._graphs) > _MOST:
            self._graphs.popitem(last=False)
        return graph

    def _forget(self) -> None:
        """Forgets kinds that came once in a while, where there are too many of them."""
        if len(self._seen) < _MOST_SEEN:
            return
        self._seen.clear()
        if not self._graphs:
            self.refuse(
                f"{_MOST_SEEN} of them differed in the shapes of their batches, or in numbers that the model holds"
            )

    def _compare(
        self,
        repeat: Callable[[], Computed],
        compute: Compute,
        inputs: Sequence[Tensor],
        state: Sequence[Tensor],
        tolerance: float,
    ) -> Computed:
        """Computes in both ways, from the same state; returns what is computed as usual."""
        with _undone(state):
            repeated = _own(repeat())
            found = [*_tensors(repeated), *(tensor.clone() for tensor in state)]
        computed = compute(inputs)
        right = [*_tensors(computed), *state]
        far = max(map(distance, found, right), default=0.0) if len(found) == len(right) else math.inf
        if far > tolerance:
            self.refuse(f"a graph's loss, gradients or buffers are not those of the step (off by {far:.1e})")
        elif _plain(repeated) != _plain(computed):
            self.refuse("they give other values than tensors, which change from step to step")
        return computed


@contextlib.contextmanager
def _undone(state: Sequence[Tensor]) -> Iterator[None]:
    """Puts back what is changed within: tensors, and random states."""
    before, randomness = [tensor.clone() for tensor in state], random_state.capture()
    try:
        yield
    finally:
        for tensor, kept in zip(state, before, strict=True):
            tensor.copy_(kept)
        random_state.restore(randomness)


def _drawn_on_the_host(device: torch.device) -> tuple[Any, ...]:
    """What changes when random numbers are drawn that a graph would not draw anew."""
    of_torch = torch.get_rng_state().numpy().tobytes() if device.type != "cpu" else None
    return random_state.drawn_on_the_host(), of_torch


def _own(computed: Computed) -> Computed:
    """What a graph gave, in memory that it does not write to again, but for what is kept."""
    values = {n: v.clone() if isinstance(v, Tensor) else v for n, v in computed.values.items()}
    return Computed(values, computed.kept)


def _tensors(computed: Computed) -> list[Tensor]:
    tensors = [value for value in computed.values.values() if isinstance(value, Tensor)]
    return tensors + [tensor.clone() for tensor in computed.kept if tensor is not None]


def _plain(computed: Computed) -> dict[str, Any]:
    return {name: value for name, value in computed.values.items() if not isinstance(value, Tensor)}
