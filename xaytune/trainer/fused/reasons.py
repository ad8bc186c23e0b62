"""Why runs are not trained at once, in words for who wrote their model: torch's own speak of vmap."""

from __future__ import annotations

from typing import Final

# What stands in an error of torch's, and what it means.
_MEANT: Final = (
    ("randomness", "its model or loss draws random numbers in its forward pass other than by nn.Dropout"),
    ("data-dependent control flow", "its model or loss branches on its data, or takes a number out of a tensor"),
    (".item()", "its model or loss branches on its data, or takes a number out of a tensor"),
    (
        "escaped from inside",
        "its model keeps a tensor of its forward pass, as torch.utils.checkpoint does",
    ),
)


def reason(error: BaseException) -> str:
    """Returns why steps could not be taken at once."""
    text = str(error).strip()
    words = text.splitlines()[0][:200] if text else ""
    told = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return next((meant for part, meant in _MEANT if part in text), told)
