"""Plain values: what a checkpoint may hold, so that it is read again without running any code."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
import torch

_KEPT_AS_THEY_ARE: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, torch.device, torch.dtype, torch.Size}
)

# What ``torch.load(weights_only=True)`` has to allow for numpy's arrays and numbers: they run no code.
ARRAY_GLOBALS: Final[list[Any]] = [
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)),
]


def plain(value: Any, name: str = "the state") -> Any:
    """Turns numbers of numpy and of other kinds into python's own, everywhere in a value.

    Args:
        value: Tensors, arrays, numbers, strings, and containers of them.
        name: What it is called where it is refused.

    Raises:
        TypeError: Something in it could not be read again; the message says where it is.
    """
    try:
        return _plain(value)
    except _RefusedError as refused:
        place = "".join(f"[{key!r}]" for key in reversed(refused.keys))
        raise TypeError(
            f"{name}{place} is of the type {refused.kind}, which a checkpoint cannot hold: it holds tensors, "
            "arrays, numbers, strings, and dicts, lists, tuples and sets of them. Save its state as those, or "
            "keep an object with save(folder) and load(folder), which writes files of its own"
        ) from None


def check_dicts(value: Any, name: str) -> None:
    """Checks that each dict, and each tuple, in a value comes back as what it is.

    Raises:
        TypeError: One would come back as a plain dict, or as a list; the message says where it is.
    """
    if isinstance(value, Mapping):
        if type(value) not in (dict, OrderedDict, Counter):
            raise TypeError(
                f"{name} is of the type {type(value).__name__}, and would come back from a checkpoint as a dict: "
                "use a dict, for instance with setdefault"
            )
        for key, item in value.items():
            check_dicts(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            raise TypeError(
                f"{name} is of the type {type(value).__name__}, and would come back from a checkpoint as a list: "
                "use a dict, for instance with _asdict()"
            )
        for index, item in enumerate(value):
            check_dicts(item, f"{name}[{index}]")


def is_surely_read_again(value: Any) -> bool:
    """Whether a plain value holds nothing but torch's own dense tensors and python's own values."""
    kind = type(value)
    if kind in _KEPT_AS_THEY_ARE:
        return True
    if kind in (torch.Tensor, torch.nn.Parameter):
        return value.layout is torch.strided and not (value.is_quantized or value.is_meta)
    if kind in (dict, OrderedDict):
        return all(is_surely_read_again(item) for item in value.values())
    return kind in (list, tuple) and all(map(is_surely_read_again, value))


class _RefusedError(Exception):
    """Something is not plain: where it is, from the inside out, and of which type."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.keys: list[Any] = []


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _KEPT_AS_THEY_ARE or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        items = {_key(key): _item(key, item) for key, item in value.items()}
        if isinstance(value, Counter):
            return Counter(items)
        return _ordered(items, value) if isinstance(value, OrderedDict) else items
    if isinstance(value, (set, frozenset)):
        return {_key(item) for item in value}
    if isinstance(value, (list, tuple)):
        listed = [_item(index, item) for index, item in enumerate(value)]
        return tuple(listed) if kind is tuple else listed
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    if isinstance(value, (np.bool_, np.number, np.str_)):
        return value.item()
    if isinstance(value, (Fraction, Decimal)):
        return float(value)
    for base in (int, float, complex, str):  # a member of an enumeration, for instance
        if isinstance(value, base):
            return base(value)  # type: ignore[arg-type]
    if kind in torch.serialization.get_safe_globals():
        return value
    raise _RefusedError(kind.__name__)


def _key(value: Any) -> Any:
    """A key of a dict, or a member of a set, which stays hashable."""
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    if isinstance(value, frozenset):
        raise _RefusedError("frozenset")
    return _plain(value)


def _item(key: Any, value: Any) -> Any:
    try:
        return _plain(value)
    except _RefusedError as refused:
        refused.keys.append(key)
        raise


def _ordered(items: dict[Any, Any], original: OrderedDict[Any, Any]) -> OrderedDict[Any, Any]:
    """The state dict of a module, with the versions of the modules that torch keeps on it."""
    ordered = OrderedDict(items)
    ordered.__dict__.update(original.__dict__)
    return ordered
