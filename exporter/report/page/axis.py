"""The scale of an axis of money."""

from __future__ import annotations

from itertools import count
from typing import Final

_MOST_TICKS: Final = 5


def ticks(largest: int) -> list[int]:
    """Round sums from 0 to the first at or above `largest`, which is more than 0; six at most, one step apart."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    step = next(candidate for candidate in steps if candidate * _MOST_TICKS >= largest)
    return [step * n for n in range(-(-largest // step) + 1)]
