"""Seeds of trials."""

from __future__ import annotations

import hashlib


def trial_seed(sweep_seed: int, number: int) -> int:
    """Returns the seed of a trial: the same for the same sweep and number, unlike its neighbours'."""
    digest = hashlib.sha256(f"{sweep_seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
