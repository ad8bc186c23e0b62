"""A group: members of one shape, whose steps and evaluations are taken by one program."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from xaytune.trainer.batches import to_device
from xaytune.trainer.data import batches_of
from xaytune.trainer.evaluation import evaluated
from xaytune.trainer.fused import update
from xaytune.trainer.fused.asked import Asked, Broken
from xaytune.trainer.fused.dropout import Mask
from xaytune.trainer.fused.keys import NotFusedError
from xaytune.trainer.fused.learned import Learned
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.metrics import by_member, means_of, metrics_of
from xaytune.trainer.fused.program import Passed, Program, stack
from xaytune.trainer.fused.rows import Layout, Rows, WorkingRows
from xaytune.trainer.graphs import Computed, Graphs, is_recorded
from xaytune.trainer.step import Step, Stepped
from xaytune.trainer.tolerance import tolerance
from xaytune.trainer.weights import Shares, above_zero, weighted

# What a step gives besides its metrics.
_GRADIENTS = "the gradients"
# Seconds that steps are taken in a row, at most.
_IN_A_ROW_S = 0.1
# Members come and leave: only where so many steps of as many members have been taken a graph is worth recording.
_AFTER = 20


class Copied(NamedTuple):
    """Members as they were before a step.

    Attributes:
        rows: Copies of their rows.
        random_states: Those of the generators that draw for them.
    """

    rows: WorkingRows
    random_states: list[Tensor]


class _Inputs(NamedTuple):
    """What a step is computed from, beside the rows.

    Attributes:
        windows: A batch of all members (members, ...) for each batch of a window.
        masks: Of the dropout layers, for each of them.
        exact: Hyperparameters, for each group of parameters.
        largest: Norm of the gradients, at most (members,); None where they are not clipped.
    """

    windows: list[Any]
    masks: list[list[Tensor]]
    exact: list[Tensor]
    largest: Tensor | None


class _Gradients(NamedTuple):
    """What passes gave, before anything is changed.

    Attributes:
        flat: (members, width), clipped.
        metrics: Of each member (members,), or for all, by name.
        buffers: As the passes left them.
    """

    flat: Tensor
    metrics: dict[str, Any]
    buffers: Mapping[str, Tensor]


class Group:
    """Members of one shape.

    Args:
        first: One of them.
        learned: Of their shape.
        tell: Called with a line where its steps cannot be recorded as CUDA graphs.

    Attributes:
        learned: What was learned of their shape.
        layout: Where each number is in a row.
        rows: The rows; those of the members come first.
        members: The members, in the order of their rows.

    Raises:
        NotFusedError: Its model cannot be copied.
    """

    def __init__(self, first: Member, learned: Learned, tell: Callable[[str], None]) -> None:
        self.learned = learned
        stepper = first.run.stepper
        self.layout = Layout(first.run)
        self.rows = Rows(first.run, self.layout)
        self.members: list[Member] = []
        self._program = Program(first.run, self.layout)
        self._clips = stepper.clip_grad_norm is not None
        self._options = list(map(update.shared_options, stepper.optimizer.param_groups))
        self._masks: dict[Hashable, list[Mask]] = {}
        self._trained = [at for at, (begin, end) in enumerate(self.layout.groups) if begin < end]
        self._hyper: dict[int, update.Hyper] = {}
        self._seconds = _IN_A_ROW_S  # that a step takes
        self._tolerance = tolerance(self.rows.dtype, stepper.precision)
        self._device, self._tell = stepper.device, tell
        self._graphs = Graphs(stepper.device, tell, _AFTER) if is_recorded(stepper.device) else None
        self._criterion_is_known = False

    def add(self, member: Member) -> None:
        """Gives a member a row."""
        if len(self.members) == self.rows.room:
            self.rows.grow()
            self.forget()  # graphs compute on the rows that there were
        member.join(self, len(self.members))
        self.members.append(member)

    def remove(self, member: Member) -> None:
        """Takes a member's row, which the last one then has."""
        last = self.members.pop()
        if last is not member:
            self.rows.move(last.row, member.row)
            self.members[member.row], last.row = last, member.row
        member.group, member.row = None, -1
        if not self.members:
            self.forget()  # graphs refer to the group: it would wait for the garbage collector

    def copy(self, members: Sequence[Member]) -> Copied:
        """Copies members, whose random states are not the global ones now."""
        rows = self.rows.copy([member.row for member in members])
        return Copied(rows, [member.generator.get_state() for member in members])

    def put_back(self, members: Sequence[Member], copied: Copied, places: Sequence[int]) -> None:
        """Makes some members, by their places, what they were when they were copied."""
        self.rows.put_back([members[at].row for at in places], copied.rows.part(places))
        for at in places:
            members[at].generator.set_state(copied.random_states[at])

    def forget(self) -> None:
        """Learns that a member has changed what it had in common with the others: graphs may compute with that."""
        if self._graphs is not None:
            self._graphs = Graphs(self._device, self._tell, _AFTER)
            self._criterion_is_known = False

    def learn(self, asked: Asked) -> None:
        """Learns what passes over batches of these shapes need, unless that is known.

        Raises:
            NotFusedError: They change more than buffers.
            Exception: They cannot be computed.
        """
        for shape, batch in zip(asked.shapes, asked.windows[0], strict=True):
            if shape not in self._masks:
                self._use_criterion_of(asked.members[0])
                taken = self.rows.take([asked.members[0].row])
                batch = to_device(batch, taken.values.device)
                self._masks[shape] = self._program.learn_masks(taken, batch)

    def take_steps(self, asked: Asked, count: int) -> tuple[list[list[Stepped]], Broken | None]:
        """Takes several steps of each of some members, which are settled in their rows.

        Args:
            asked: The first steps.
            count: How many; the members must not have asked for fewer.

        Returns:
            What each member's steps gave, and the first one after them that cannot be taken at once.

        Raises:
            Exception: The first step cannot be taken at once. Then nothing has changed.
        """
        begun = time.monotonic()
        self._use_criterion_of(asked.members[0])
        rows = [member.row for member in asked.members]
        taken = self.rows.take(rows)
        hypers = self._hypers(asked.members, taken)
        values: list[dict[str, Any]] = []
        broken: Broken | None = None
        for at in range(count):
            asked = asked.following() if at > 0 else asked
            try:
                gradients, metrics = self._step(asked, taken, hypers)
            except Exception as error:
                if at == 0:
                    raise
                broken = Broken(asked, error)
                break
            values.append(metrics)
        self.rows.put_back(rows, taken)
        for at, member in enumerate(asked.members):
            member.gradients = gradients, at
            member.stepped(len(rows), len(values))
        self._seconds = (time.monotonic() - begun) / len(values)
        return by_member(values, len(rows)), broken

    @property
    def pace(self) -> int:
        """How many steps are taken in a row, at most: somebody may have something to say meanwhile."""
        return max(1, int(_IN_A_ROW_S / self._seconds))

    def _step(
        self, asked: Asked, taken: WorkingRows, hypers: Sequence[update.Hyper]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Takes a step on rows; returns gradients (members, width), and metrics.

        Raises:
            Exception: It cannot be taken at once. Then nothing has changed, also no random state.
        """
        drawing = [member.generator for member in asked.members] if any(map(self._masks.get, asked.shapes)) else []
        before = [generator.get_state() for generator in drawing]
        try:
            return self._step_on(asked, taken, hypers)
        except Exception:
            for generator, state in zip(drawing, before, strict=True):
                generator.set_state(state)
            raise

    def _step_on(
        self, asked: Asked, taken: WorkingRows, hypers: Sequence[update.Hyper]
    ) -> tuple[Tensor, dict[str, Any]]:
        flat, structure = tree_flatten(self._inputs(asked, taken, hypers))

        def compute(tensors: Sequence[Tensor]) -> Computed:
            inputs: _Inputs = tree_unflatten(_put(flat, tensors), structure)
            gradients = self._compute(inputs, taken, asked.steps[0])
            now = [hyper.on(exact) for hyper, exact in zip(hypers, inputs.exact, strict=True)]
            self._update(taken, gradients.flat, now)
            for name in self.layout.buffers:
                taken.others[name].copy_(gradients.buffers[name])
            return Computed({_GRADIENTS: gradients.flat} | gradients.metrics)

        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        if self._graphs is None or taken.copied:
            metrics = compute(tensors).values
        else:
            options = tuple([(hyper.decays, hyper.momenta) for hyper in hypers])
            kind = len(asked.members), asked.shapes, asked.steps[0].expected, options
            state = [taken.values, taken.counts, *taken.states.values(), *taken.others.values()]
            metrics = self._graphs.run(kind, compute, tensors, state, self._tolerance).values
        return metrics.pop(_GRADIENTS), metrics

    def evaluate(self, members: Sequence[Member]) -> list[dict[str, Any]]:
        """Evaluates some members, whose evaluations are over the same batches.

        Raises:
            Exception: They cannot be evaluated at once.
        """
        evaluator = members[0].run.evaluator
        assert evaluator is not None
        self._use_criterion_of(members[0])
        taken = self.rows.take([member.row for member in members])
        total = weight = hits = judged = torch.zeros(len(members), dtype=torch.float64, device=taken.values.device)
        batches = 0
        for batches, batch in enumerate(batches_of(evaluator.loader), start=1):  # noqa: B007
            passed = self._program.evaluate(taken, to_device(batch, taken.values.device))
            counts = passed.value("weight")
            total = total + weighted(passed.values["loss"].double(), counts)
            weight, hits, judged = weight + counts, hits + passed.value("hits"), judged + passed.value("judged")
        if batches == 0:
            raise NotFusedError("its eval_loader yields no batch")
        sums = zip(total.tolist(), weight.tolist(), hits.tolist(), judged.tolist(), strict=True)
        return [evaluated(*each) for each in sums]

    def _use_criterion_of(self, member: Member) -> None:
        # A graph keeps the memory of what it was recorded with.
        if self._graphs is None or not self._criterion_is_known:
            self._program.use_criterion_of(member.run)
            self._criterion_is_known = True

    def _inputs(self, asked: Asked, taken: WorkingRows, hypers: Sequence[update.Hyper]) -> _Inputs:
        device = taken.values.device
        windows = [to_device(stack(batches), device) for batches in zip(*asked.windows, strict=True)]
        masks = [self._draw(asked, taken, at) for at in range(len(windows))]
        largest: Tensor | None = None
        if self._clips:
            norms = [member.run.stepper.clip_grad_norm for member in asked.members]
            largest = taken.values.new_tensor(norms)
        return _Inputs(windows, masks, [hyper.exact for hyper in hypers], largest)

    def _compute(self, inputs: _Inputs, taken: WorkingRows, step: Step) -> _Gradients:
        parameters = [p.detach().requires_grad_() for p in self.layout.split(taken.values)]
        others: Mapping[str, Tensor] = taken.others
        passes: list[Passed] = []
        total: list[Tensor] = []
        several, expected, shares = step.window > 1, step.expected, Shares()
        for batch, masks in zip(inputs.windows, inputs.masks, strict=True):
            passed = self._program.train(parameters, others, batch, masks)
            passes.append(passed)
            losses = passed.values["loss"]
            if several:
                losses = weighted(losses, shares.of(passed.value("weight"))) / expected
            gradients = torch.autograd.grad(losses.sum(), parameters)
            total = list(torch._foreach_add(total, gradients)) if total else list(gradients)
            others = {**others, **{name: buffer.detach() for name, buffer in passed.buffers.items()}}
        flat = self.layout.join(total)
        if several:
            metrics, whole = means_of(passes, shares.given)
            correction = expected / above_zero(whole, 1)
            flat.mul_(correction.unsqueeze(1).to(flat.dtype) if isinstance(correction, Tensor) else correction)
        else:
            metrics = metrics_of(passes[0])
        norms = torch.linalg.vector_norm(flat, dim=1)
        if inputs.largest is not None:
            update.clip(flat, norms, inputs.largest)
        return _Gradients(flat, {"grad_norm": norms} | metrics, others)

    def _draw(self, asked: Asked, taken: WorkingRows, at: int) -> list[Tensor]:
        """Draws the masks of the pass over one batch of the window."""
        needed = self._masks[asked.shapes[at]]
        if not needed:
            return []
        drops = [member.drops for member in asked.members]
        generators = [member.generator for member in asked.members]
        return self._program.masks.draw(needed, drops, generators)

    def _hypers(self, members: Sequence[Member], taken: WorkingRows) -> list[update.Hyper]:
        """Returns the hyperparameters of members as they are now, for each group of parameters that has some."""
        optimizers = [member.run.stepper.optimizer for member in members]
        for at in self._trained:
            groups = [optimizer.param_groups[at] for optimizer in optimizers]
            hyper = self._hyper.get(at)
            if hyper is None or hyper.read != update.read(self.layout.kind, groups):
                self._hyper[at] = update.Hyper(self.layout.kind, groups, taken.values)
        return [self._hyper[at] for at in self._trained]

    def _update(self, taken: WorkingRows, gradients: Tensor, hypers: Sequence[update.Hyper]) -> None:
        counts = taken.counts + 1
        steps = []
        for at, hyper in zip(self._trained, hypers, strict=True):
            begin, end = self.layout.groups[at]
            states = {name: tensor[:, begin:end] for name, tensor in taken.states.items()}
            values, part = taken.values[:, begin:end], gradients[:, begin:end]
            kind, options = self.layout.kind, self._options[at]
            steps.append(update.prepare(kind, options, values, part, states, hyper, counts))
        for take in steps:  # once nothing can be lacking any more: else rows would be left half stepped
            take()
        taken.counts.copy_(counts)


def _put(leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """Returns leaves with other tensors in the places of theirs."""
    left = iter(tensors)
    return [next(left) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
