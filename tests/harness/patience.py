"""How long the harness waits for what is to come, before it says that it did not: the one limit for all of it.

No test waits for a time; each waits for what the product reports. So the limit is no expectation: it is far above what
anything takes on a slow machine, and below `timeout` of pytest, which says less of what was waited for.
"""

import functools
import time

HANG = 240.0
"""Seconds."""

REFERENCE = 0.03
"""Seconds of CPU that `_work` takes on the machine for which the tests' settings were chosen."""


def _work() -> float:
    began = time.process_time()
    total = 0
    for number in range(1_000_000):
        total += number
    return time.process_time() - began


@functools.cache
def pace() -> float:
    """Return how much slower this machine is, from 1 to 5; what runs beside it does not count.

    Where a real process must run, AgentOS takes so much longer to commit what it did. So its `overlap` and its
    `trace_horizon` are longer by as much, and nothing else in a test is.
    """
    return min(5.0, max(1.0, _work() / REFERENCE))


def stretched(seconds: float) -> float:
    """Return a time that this machine needs for what takes so many seconds elsewhere."""
    return seconds * pace()
