"""Numbers as Grafana writes them, for the units that the boards use."""

from __future__ import annotations

import math
import time
from typing import Final

_THOUSANDS: Final = ("", " K", " Mil", " Bil", " Tri")
_DOLLARS: Final = ("", "K", "M", "B", "T")
_BYTES: Final = (" B", " KiB", " MiB", " GiB", " TiB")
_BYTES_PER_SECOND: Final = (" B/s", " kB/s", " MB/s", " GB/s", " TB/s")
_TIMES: Final = ((31_536_000, "year"), (2_592_000, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit. Raises KeyError for a unit that no board uses."""
    if math.isnan(value):
        return "NaN"
    return _WRITERS[unit](value, decimals)


def _fixed(value: float, decimals: int | None) -> str:
    """With the given decimals, else with about three significant digits, as Grafana chooses them."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _scaled(value: float, decimals: int | None, suffixes: tuple[str, ...], factor: int = 1000) -> str:
    power = 0
    while abs(value) >= factor and power < len(suffixes) - 1:
        value /= factor
        power += 1
    return _fixed(value, decimals) + suffixes[power]


def _seconds(value: float, decimals: int | None) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    for below, factor, suffix in (
        (1e-3, 1e6, " µs"),
        (1, 1e3, " ms"),
        (60, 1, " s"),
        (3_600, 1 / 60, " mins"),
        (86_400, 1 / 3_600, " hours"),
        (math.inf, 1 / 86_400, " days"),
    ):
        if size < below:
            return _fixed(value * factor, decimals) + suffix
    raise AssertionError(value)


def _from_now(value: float, _: int | None) -> str:
    seconds = value / 1000 - time.time()
    count, name = round(abs(seconds)), "second"
    for size, longer in _TIMES:
        if abs(seconds) >= size:
            count, name = round(abs(seconds) / size), longer
            break
    text = f"{count} {name}{'s' if count != 1 else ''}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


_WRITERS: Final = {
    "none": _fixed,
    "locale": lambda value, decimals: f"{value:,.{0 if decimals is None else decimals}f}",
    "short": lambda value, decimals: _scaled(value, decimals, _THOUSANDS),
    "percentunit": lambda value, decimals: f"{_fixed(100 * value, decimals)}%",
    "currencyUSD": lambda value, decimals: ("-" if value < 0 else "") + "$" + _scaled(abs(value), decimals, _DOLLARS),
    "s": _seconds,
    "bytes": lambda value, decimals: _scaled(value, decimals, _BYTES, 1024),
    "Bps": lambda value, decimals: _scaled(value, decimals, _BYTES_PER_SECOND),
    "dateTimeFromNow": _from_now,
}
