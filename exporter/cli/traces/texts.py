"""What commands write for people: numbers, times and texts from outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from exporter.core.model import MICROSECONDS
from exporter.core.text import escaped
from exporter.core.times import utc


def plain(text: str, *, lines: bool = False) -> str:
    """The text without anything that a terminal obeys: unprintable characters show as escapes.

    Line breaks stay where `lines` is set; tabs are spaces.
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "\n".join(map(escaped, text.split("\n"))) if lines else escaped(text)


def counted(count: int, thing: str) -> str:
    """A number with its noun, in the singular or the plural."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def local_time(micros: int) -> datetime:
    """A time in the zone of this machine."""
    time = utc(micros)
    try:
        return time.astimezone()
    except (OverflowError, ValueError, OSError):  # in the year 1 or 9999 another zone may be out of range
        return time


def when(micros: int, *, dated: bool = True) -> str:
    """A time in the zone of this machine, as text."""
    local = local_time(micros)
    return local.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")


def all_today(times: Sequence[int]) -> bool:
    """Whether these times are all of this day."""
    today = datetime.now().astimezone().date()
    return all(local_time(moment).date() == today for moment in times)


def lasted(micros: int) -> str:
    """A duration, in the unit that suits it."""
    seconds = micros / MICROSECONDS
    if seconds < 1:
        return f"{micros / 1000:.0f} ms" if micros >= 1000 or not micros else f"{micros / 1000:.1f} ms"  # noqa: PLR2004
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"  # noqa: PLR2004
