"""Keys of values: two that compare equal mean that the values do the same in a forward pass."""

from __future__ import annotations

import enum
import functools
import sys
import types
import zlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from xaytune.trainer.reach import content_of

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
# Tensors up to so many numbers are compared by what they hold.
_SMALL: Final = 1 << 14

_METHODS: Final = (types.FunctionType, staticmethod, classmethod, property)
# What every module has, beside its own attributes.
INTERNAL: Final = frozenset(vars(nn.Module()))
HOOKS: Final = tuple(name for name in INTERNAL if name.endswith("_hooks") and "state_dict" not in name)

Name = Callable[[nn.Module], "str | None"]


class NotFusedError(Exception):
    """A run cannot be fused with others; the message says why."""


def key_of(value: Any, where: str, name_of: Name) -> Hashable:
    """Returns the key of a value.

    Args:
        value: Plain values, containers, functions, modules and tensors.
        where: What it is called where it is refused.
        name_of: Returns the name that a module has in its model; None for one that is no part of it.

    Raises:
        NotFusedError: It cannot be told whether another one is the same.
    """
    if isinstance(value, enum.Enum):
        return key_of_type(type(value)), value.name
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value) if isinstance(value, (float, complex)) else value
    if isinstance(value, Mapping):
        items = [(key_of(key, where, name_of), key_of(item, where, name_of)) for key, item in value.items()]
        return type(value).__name__, tuple(items)
    if isinstance(value, (tuple, list)):
        return type(value).__name__, tuple(key_of(item, where, name_of) for item in value)
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(key_of(item, where, name_of) for item in value)
    if isinstance(value, type):
        return key_of_type(value)
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if isinstance(value, (np.ndarray, np.generic)):
        return _key_of_array(np.asarray(value), where)
    if isinstance(value, Tensor):
        return _key_of_tensor(value, where)
    if isinstance(value, nn.Module):
        name = name_of(value)
        return ("part", name) if name is not None else _key_of_module(value, where)
    if isinstance(value, property):
        return "property", key_of(value.fget, where, name_of), key_of(value.fset, where, name_of)
    if isinstance(value, (staticmethod, classmethod)):
        return type(value).__name__, key_of(value.__func__, where, name_of)
    if callable(value):
        return _key_of_callable(value, where, name_of)
    raise NotFusedError(f"{where} holds a {type(value).__name__}, which cannot be compared with another run's")


def key_of_type(kind: type) -> Hashable:
    """Returns the key of a class: itself, or what it consists of where each run makes its own."""
    if is_found(kind):
        return kind
    attributes = tuple(
        (name, key_of(value, f"{kind.__qualname__}.{name}", lambda module: None))
        for name, value in sorted(vars(kind).items())
        if isinstance(value, _METHODS) or not _is_of_every_class(name, value)
    )
    return kind.__module__, kind.__qualname__, tuple(map(key_of_type, kind.__bases__)), attributes


def _is_of_every_class(name: str, value: Any) -> bool:
    return name.startswith("__") or name == "_abc_impl" or isinstance(value, types.GetSetDescriptorType)


def _key_of_callable(function: Any, where: str, name_of: Name) -> Hashable:
    if isinstance(function, functools.partial):
        parts = (function.func, function.args, function.keywords)
        return "partial", tuple(key_of(part, where, name_of) for part in parts)
    if isinstance(function, types.MethodType):
        owner = function.__self__
        if isinstance(owner, type):
            return "method", key_of_type(owner), function.__name__
        return "method", key_of(owner, where, name_of), function.__name__
    if not isinstance(function, types.FunctionType):
        if isinstance(function, (types.BuiltinFunctionType, types.MethodWrapperType, torch.jit.ScriptFunction)):
            owner = getattr(function, "__self__", None)
            of = None if isinstance(owner, (type, types.ModuleType)) else key_of(owner, where, name_of)
            named = getattr(function, "__qualname__", id(function))
            return "builtin", getattr(function, "__module__", ""), named, of
        return _key_of_plain_object(function, where, name_of)
    cells = [content_of(cell) for cell in function.__closure__ or ()]
    names = function.__code__.co_freevars
    captured = tuple(
        key_of(content, f"{where}, which captures {name}: it", name_of)
        for name, content in zip(names, cells, strict=True)
        if content is not function and name != "__class__"
    )
    attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
    if is_found(function) and not captured and not attributes:
        return function
    beside = [function.__defaults__ or (), function.__kwdefaults__ or {}, attributes]
    return function.__module__, function.__code__, captured, key_of(beside, where, name_of)


def _key_of_module(module: nn.Module, where: str) -> Hashable:
    """The key of a module that is no part of the model, such as a loss: it must have nothing to train."""
    if next(module.parameters(), None) is not None:
        kind = type(module).__name__
        raise NotFusedError(f"{where} holds a {kind}, which has parameters beside the model's modules")
    if any(vars(part).get(hooks) for part in module.modules() for hooks in HOOKS):
        raise NotFusedError(f"{where} holds a {type(module).__name__} with hooks")
    return key_of_type(type(module)), tuple(
        (name, key_of(value, where, lambda part: None))
        for name, value in vars(module).items()
        if name not in INTERNAL or name in ("_buffers", "_modules", "training")
    )


def _key_of_plain_object(value: Any, where: str, name_of: Name) -> Hashable:
    """The key of an object of a class of its own that can be called: what its attributes are."""
    slots = [kind for kind in type(value).__mro__ if vars(kind).get("__slots__")]
    if slots or not hasattr(value, "__dict__"):
        raise NotFusedError(f"{where} is a {type(value).__name__}, which cannot be compared with another run's")
    return key_of_type(type(value)), key_of(vars(value), where, name_of)


def _key_of_tensor(tensor: Tensor, where: str) -> Hashable:
    lazy = tensor.is_meta or tensor.is_conj() or tensor.is_neg()
    if tensor.layout is not torch.strided or tensor.is_nested or lazy:
        raise NotFusedError(f"{where} holds a tensor whose numbers are not plainly in memory, to be compared")
    shape, kind = tuple(tensor.shape), str(tensor.dtype)
    if tensor.requires_grad:
        raise NotFusedError(f"{where} holds a tensor that requires a gradient")
    if tensor.numel() > _SMALL:  # the same one, such as data
        version = 0 if tensor.is_inference() else tensor._version
        return "tensor", tensor.data_ptr(), version, shape, tensor.stride(), kind
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return "tensor", str(tensor.device), shape, kind, data.numpy().tobytes()


def _key_of_array(array: np.ndarray[Any, Any], where: str) -> Hashable:
    if array.dtype.hasobject:
        raise NotFusedError(f"{where} holds an array of objects, which cannot be compared with another run's")
    return "array", array.shape, str(array.dtype), zlib.crc32(array.tobytes())


def is_found(value: Any) -> bool:
    """Whether a class or function is the one that its module has under its name."""
    try:
        found: Any = functools.reduce(getattr, value.__qualname__.split("."), sys.modules[value.__module__])
    except (KeyError, AttributeError):
        return False
    return found is value
