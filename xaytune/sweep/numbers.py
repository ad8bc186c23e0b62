"""Numbers as people read them: with four digits that count, more where it takes more to tell two apart."""

from __future__ import annotations

_DIGITS = 4
# A float has no more of them.
_MOST_DIGITS = 17
# From here on a number is written with a power of ten; below, no digit before the point is left out.
_LONG = 1e9


def written(value: float, digits: int = _DIGITS) -> str:
    """Writes a number with so many digits that count, and all of those before the point."""
    text = f"{value + 0.0:.{digits}g}"  # no "-0"
    return f"{value:.0f}" if "e+" in text and abs(value) < _LONG else text


def trials(count: int) -> str:
    """Writes a number of trials."""
    return "1 trial" if count == 1 else f"{count} trials"


def told_apart(*values: float) -> list[str]:
    """Writes numbers that are compared: those that are not equal do not look so."""
    for digits in range(_DIGITS, _MOST_DIGITS + 1):
        texts = [written(value, digits) for value in values]
        if len(set(texts)) >= len(set(values)):
            break
    return texts
