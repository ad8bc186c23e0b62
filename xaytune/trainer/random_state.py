"""The random generators of a process: seeding, capturing and restoring them all at once."""

from __future__ import annotations

import hashlib
import pickle
import random
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from xaytune.trainer.reach import named_in, reachable

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def seed_everything(seed: int) -> None:
    """Seeds python's, numpy's and torch's global generators, on every device.

    Args:
        seed: From 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    if torch.accelerator.current_accelerator() is None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes milliseconds to note who calls it
    else:
        torch.manual_seed(seed)


def capture(generators: Sequence[Generator] = ()) -> dict[str, Any]:
    """Takes the state of the global generators and of the given ones.

    Returns:
        Tensors and plain values only, so that it can be loaded with ``weights_only=True``.
    """
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    return {
        "python": _in_tensors(random.getstate()),
        "numpy": legacy if "key" not in legacy["state"] else _mersenne_twister(legacy),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "generators": [state_of(generator) for generator in generators],
    }


def restore(state: dict[str, Any], generators: Sequence[Generator] = ()) -> None:
    """Puts back what :func:`capture` took.

    Raises:
        ValueError: It was taken from more generators than are given.
    """
    random.setstate(_as_python_has_it(state["python"]))
    np.random.set_state(_as_numpy_has_it(state["numpy"]))
    torch.set_rng_state(state["torch"])
    for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):  # there may be fewer now
        torch.cuda.set_rng_state(device_state, device)
    saved = state["generators"]
    if len(saved) > len(generators):
        raise ValueError(
            f"the state of {len(saved)} random generators was saved, but there are {len(generators)} now: resume "
            "with the loaders, samplers and datasets that the run was begun with"
        )
    for generator, saved_state in zip(generators, saved, strict=False):
        put(generator, saved_state)


def drawn_on_the_host() -> tuple[Any, ...]:
    """Returns what changes when global random numbers are drawn that are not torch's."""
    legacy: Any = np.random.get_state()
    return random.getstate(), legacy[1].tobytes(), *legacy[2:]


def held_by(*owners: Any) -> list[Generator]:
    """Returns the random generators that objects hold, or whose global names are in their code, each once.

    One that draws from the system has no state.
    """
    found = [*reachable(owners), *(value for owner in owners for value in _named_by(owner))]
    generators = {id(value): value for value in found if isinstance(value, Generator)}
    return [one for one in generators.values() if not isinstance(one, random.SystemRandom)]


def _named_by(owner: Any) -> Iterator[Any]:
    """Yields the values of the global names in the code of a function, or of an object's methods.

    Those of torch's own classes are left out.
    """
    if isinstance(owner, types.FunctionType):
        yield from named_in(owner)
        return
    for kind in type(owner).__mro__:
        if not kind.__module__.startswith("torch."):
            for function in vars(kind).values():
                if isinstance(function, types.FunctionType):
                    yield from named_in(function)


def state_of(generator: Generator) -> Any:
    """Returns the state of a generator, in tensors and plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return _in_tensors(generator.getstate())


def digest(generator: Generator) -> str:
    """Returns what tells the state of a generator from others, also in another process."""
    state = generator.getstate() if isinstance(generator, random.Random) else state_of(generator)
    content = state.numpy().tobytes() if isinstance(state, torch.Tensor) else pickle.dumps(state)
    return hashlib.sha256(content).hexdigest()


def is_state_of(generator: Generator, state: Any) -> bool:
    """Whether a state that was captured is one of a generator of this kind."""
    if isinstance(generator, torch.Generator):
        return isinstance(state, torch.Tensor)
    if isinstance(generator, random.Random):
        return isinstance(state, (list, tuple))
    own: Any = state_of(generator)
    return isinstance(state, dict) and state.get("bit_generator") == own["bit_generator"]


def put(generator: Generator, state: Any) -> None:
    """Puts a generator into a state that was captured."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(_as_python_has_it(state))


def _mersenne_twister(legacy: dict[str, Any]) -> dict[str, Any]:
    """The state of numpy's generator, where it is the one that numpy begins with."""
    return {
        "bit_generator": legacy["bit_generator"],
        "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "pos": int(legacy["state"]["pos"]),
        "has_gauss": int(legacy["has_gauss"]),
        "gauss": float(legacy["gauss"]),
    }


def _as_numpy_has_it(state: dict[str, Any]) -> dict[str, Any]:
    if "key" not in state:
        return state
    key = state["key"].tolist()  # numpy reads a list much faster than an array
    return {**state, "state": {"key": key, "pos": state["pos"]}}


def _in_tensors(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """The state of python's generator; its 625 numbers are read much faster as a tensor than one by one."""
    version, internal, gauss_next = state
    return version, torch.from_numpy(np.fromiter(internal, np.int64, len(internal))), gauss_next


def _as_python_has_it(state: tuple[Any, ...]) -> tuple[Any, ...]:
    version, internal, gauss_next = state
    return version, tuple(torch.as_tensor(internal).tolist()), gauss_next  # a list in older checkpoints
