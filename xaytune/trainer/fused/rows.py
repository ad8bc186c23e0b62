"""Rows: the numbers of members side by side, a row a member.

A member's model and optimizer keep tensors of their own: a row is a copy of them that is newer while the member
trains fused, and is copied back before anybody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from xaytune.trainer.fused.update import STATES
from xaytune.trainer.run import Run

# Columns of a parameter begin at multiples of so many numbers: kernels read aligned rows faster.
_ALIGNED = 16


class Layout:
    """Where the numbers of a member are in its row, which is the same for all members of a shape.

    Args:
        run: One of them.

    Attributes:
        kind: The class of the optimizer.
        names: The names of the trained parameters, in their order in a row.
        places: Where each of them begins and ends.
        shapes: The shape of each.
        groups: Where each group of the optimizer's parameters begins and ends.
        width: How many numbers a row has.
        others: Names of parameters that are not trained.
        buffers: Names of buffers.
    """

    def __init__(self, run: Run) -> None:
        stepper = run.stepper
        names = {id(p): name for name, p in stepper.model.named_parameters()}
        self.kind = type(stepper.optimizer)
        self.names: list[str] = []
        self.places: list[tuple[int, int]] = []
        self.shapes: list[torch.Size] = []
        self.groups: list[tuple[int, int]] = []
        at = 0
        for group in stepper.optimizer.param_groups:
            begin = at
            for parameter in (p for p in group["params"] if p.grad is not None):
                self.names.append(names[id(parameter)])
                self.places.append((at, at + parameter.numel()))
                self.shapes.append(parameter.shape)
                at += -(-parameter.numel() // _ALIGNED) * _ALIGNED
            self.groups.append((begin, at))
        self.width = at
        trained = set(self.names)
        self.others = [name for name, p in stepper.model.named_parameters() if name not in trained]
        self.buffers = [name for name, _ in stepper.model.named_buffers()]

    def split(self, rows: Tensor) -> list[Tensor]:
        """Returns the parameters in rows (members, width), each (members, *shape): views."""
        return [
            rows[:, begin:end].view(len(rows), *shape)
            for (begin, end), shape in zip(self.places, self.shapes, strict=True)
        ]

    def split_one(self, row: Tensor) -> list[Tensor]:
        """Returns the parameters in one row (width,): views."""
        return [row[b:e].view(shape) for (b, e), shape in zip(self.places, self.shapes, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns rows (members, width) of what has the shapes that :meth:`split` gives."""
        members = len(parts[0])
        pieces: list[Tensor] = []
        for at, (part, (_, end)) in enumerate(zip(parts, self.places, strict=True)):
            pieces.append(part.reshape(members, -1))
            following = self.places[at + 1][0] if at + 1 < len(self.places) else self.width
            if following > end:
                pieces.append(part.new_zeros(members, following - end))
        return torch.cat(pieces, dim=1)


@dataclass
class WorkingRows:
    """Rows that a step is taken on: the rows themselves where they are the first ones, else copies.

    Attributes:
        values: Trained parameters (members, width).
        states: Of the optimizer, by name, each (members, width).
        counts: Steps taken (members, 1), in float64.
        others: What is not trained, by name, each (members, *shape).
        copied: Whether they are copies.
    """

    values: Tensor
    states: dict[str, Tensor]
    counts: Tensor
    others: dict[str, Tensor]
    copied: bool

    def part(self, places: Sequence[int]) -> WorkingRows:
        """Returns copies of some of the rows."""
        index = torch.tensor(list(places), device=self.values.device)
        states = {name: tensor[index] for name, tensor in self.states.items()}
        others = {name: tensor[index] for name, tensor in self.others.items()}
        return WorkingRows(self.values[index], states, self.counts[index], others, copied=True)


class Rows:
    """The rows of a group of members.

    Args:
        run: One of the group.
        layout: Of its shape.
    """

    def __init__(self, run: Run, layout: Layout) -> None:
        model = run.stepper.model
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        like = tensors[layout.names[0]]
        self._layout = layout
        self._values = like.new_zeros(0, layout.width)
        self._states = {name: like.new_zeros(0, layout.width) for name in STATES[layout.kind]}
        self._counts = torch.zeros(0, 1, dtype=torch.float64, device=like.device)
        self._others = {
            name: tensors[name].detach().new_zeros(0, *tensors[name].shape)
            for name in (*layout.others, *layout.buffers)
        }
        self._views: dict[int, tuple[list[Tensor], list[list[Tensor]], list[Tensor]]] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers of the parameters."""
        return self._values.dtype

    @property
    def room(self) -> int:
        """How many rows there are."""
        return len(self._values)

    def grow(self) -> None:
        """Makes twice as many rows, elsewhere in memory."""
        more = max(1, self.room)

        def grown(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])

        values, counts = grown(self._values), grown(self._counts)
        states = {name: grown(tensor) for name, tensor in self._states.items()}
        self._others = {name: grown(tensor) for name, tensor in self._others.items()}
        self._values, self._counts, self._states, self._views = values, counts, states, {}

    def put(self, row: int, own: Own) -> None:
        """Copies a member into its row."""
        values, states, others = self._views_of(row)
        torch._foreach_copy_(values, own.parameters)
        for name, views in zip(self._states, states, strict=True):
            for view, kept in zip(views, own.state(name), strict=True):
                view.zero_() if kept is None else view.copy_(kept)
        if others:
            torch._foreach_copy_(others, own.others)
        self._counts[row] = own.count()

    def get(self, row: int, own: Own) -> None:
        """Copies a row back into its member."""
        values, states, others = self._views_of(row)
        torch._foreach_copy_(own.parameters, values)
        if count := float(self._counts[row]):  # else no step was taken since it was put there
            own.set_count(count)
            for name, views in zip(self._states, states, strict=True):
                own.set_state(name, views)
        if others:
            torch._foreach_copy_(own.others, others)

    def buffers(self, row: int) -> list[Tensor]:
        """Returns the buffers in a row."""
        return [self._others[name][row] for name in self._layout.buffers]

    def move(self, source: int, target: int) -> None:
        """Copies a row over another one."""
        for tensor in (self._values, self._counts, *self._states.values(), *self._others.values()):
            tensor[target].copy_(tensor[source])

    def take(self, rows: Sequence[int]) -> WorkingRows:
        """Returns rows to be worked on."""
        if list(rows) == list(range(len(rows))):
            n = len(rows)
            return WorkingRows(
                self._values[:n],
                {name: tensor[:n] for name, tensor in self._states.items()},
                self._counts[:n],
                {name: tensor[:n] for name, tensor in self._others.items()},
                copied=False,
            )
        return self.copy(rows)

    def copy(self, rows: Sequence[int]) -> WorkingRows:
        """Returns copies of rows."""
        return WorkingRows(self._values, self._states, self._counts, self._others, copied=False).part(rows)

    def put_back(self, rows: Sequence[int], taken: WorkingRows) -> None:
        """Puts rows back that were worked on."""
        if not taken.copied:
            return
        index = torch.tensor(rows, device=self._values.device)
        self._values.index_copy_(0, index, taken.values)
        self._counts.index_copy_(0, index, taken.counts)
        for mine, theirs in ((self._states, taken.states), (self._others, taken.others)):
            for name, tensor in theirs.items():
                mine[name].index_copy_(0, index, tensor)

    def _views_of(self, row: int) -> tuple[list[Tensor], list[list[Tensor]], list[Tensor]]:
        views = self._views.get(row)
        if views is None:
            split = self._layout.split_one
            states = [split(tensor[row]) for tensor in self._states.values()]
            views = split(self._values[row]), states, [tensor[row] for tensor in self._others.values()]
            self._views[row] = views
        return views


class Own:
    """What a member's own model and optimizer keep, in the order of its layout.

    Args:
        run: The member.
        layout: Of its shape.
    """

    def __init__(self, run: Run, layout: Layout) -> None:
        stepper = run.stepper
        parameters, buffers = dict(stepper.model.named_parameters()), dict(stepper.model.named_buffers())
        self._optimizer = stepper.optimizer
        self.trained: list[nn.Parameter] = [parameters[name] for name in layout.names]
        self._others = [parameters[name] for name in layout.others] + [buffers[name] for name in layout.buffers]
        self._kept = STATES[layout.kind]
        self._counts = layout.kind is not SGD

    @property
    def parameters(self) -> list[Tensor]:
        """The trained ones, as they are now: a handler may have set ``data`` of one, which is then elsewhere."""
        return [parameter.data for parameter in self.trained]

    @property
    def others(self) -> list[Tensor]:
        """The parameters that are not trained, and the buffers."""
        return [tensor.data for tensor in self._others]

    @property
    def is_whole(self) -> bool:
        """Whether the optimizer has its state of all parameters, after as many steps of each, or of none."""
        states = [self._optimizer.state.get(parameter, {}) for parameter in self.trained]
        if not self._counts or not any(states):
            return True
        whole = all(name in state for state in states for name in ("step", *self._kept))
        return whole and len({float(state["step"]) for state in states}) == 1

    def state(self, name: str) -> list[Tensor | None]:
        """Returns what the optimizer keeps of each parameter under a name; None where it keeps nothing yet."""
        return [self._optimizer.state.get(p, {}).get(name) for p in self.trained]

    def set_state(self, name: str, values: list[Tensor]) -> None:
        """Sets what the optimizer keeps; SGD keeps nothing of a group without momentum."""
        kept = self.state(name)
        # Not `None in kept`: comparing a tensor with it is an error within torch, which then walks up the C stack.
        # That is not whole in a greenlet, and once in a while the walk ends the process.
        there = [tensor for tensor in kept if tensor is not None]
        if len(there) == len(kept):
            torch._foreach_copy_(there, values)
            return
        groups = self._groups()
        for parameter, own, value in zip(self.trained, kept, values, strict=True):
            if own is not None:
                own.copy_(value)
            elif groups[id(parameter)].get("momentum") != 0:
                self._optimizer.state[parameter][name] = value.clone()

    def count(self) -> float:
        """Returns how many steps were taken, where the optimizer counts them."""
        return float(self._optimizer.state.get(self.trained[0], {}).get("step", 0.0))

    def set_count(self, count: float) -> None:
        """Sets how many steps were taken, where the optimizer counts them."""
        if not self._counts:
            return
        groups = self._groups()
        counts: list[Tensor] = []
        for parameter in self.trained:
            state = self._optimizer.state[parameter]
            if "step" not in state:
                state["step"] = _count_of_steps(parameter, groups[id(parameter)])
            counts.append(state["step"])
        torch._foreach_zero_(counts)
        torch._foreach_add_(counts, count)

    def _groups(self) -> dict[int, dict[str, Any]]:
        return {id(p): group for group in self._optimizer.param_groups for p in group["params"]}


def _count_of_steps(parameter: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
    """Returns a count of steps as torch's Adam makes it before the first one."""
    is_fused = bool(group.get("fused"))
    in_double = torch.get_default_dtype() == torch.float64 and not is_fused
    kind = torch.float64 if in_double else torch.float32
    return torch.zeros((), dtype=kind, device=parameter.device if is_fused else "cpu")
