"""Paths and files that the configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.core.document import RefusedError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_BYTES: Final = 1024 * 1024
"""Largest size of a configuration file."""


def path_shown(path: Path) -> str:
    """A path, as messages show it."""
    return shown(str(path), 4096)


def parse_path(base: Path) -> Callable[[str], Path]:
    """A parser of paths, relative to `base`."""

    def parse(text: str) -> Path:
        if not text.strip() or "\0" in text:
            raise RefusedError("must be the path of a file")
        return base / text

    return parse


def mode(path: Path, test: Callable[[int], bool]) -> bool:
    """Whether there is a file whose mode passes the test."""
    try:
        return test(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def head(path: Path, size: int) -> bytes:
    """The first bytes of a file. Raises OSError, and ValueError for an impossible path."""
    with path.open("rb") as file:
        return file.read(size)


def content(path: Path) -> bytes:
    """All of a configuration file. Raises RefusedError that names it."""
    try:
        raw = head(path, FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RefusedError(f"cannot read {path_shown(path)}: {reason(error)}") from None
    if len(raw) > FILE_BYTES:
        raise RefusedError(f"{path_shown(path)} is larger than 1 MiB")
    return raw


def reason(error: Exception) -> str:
    """Why a file cannot be read, in words."""
    return getattr(error, "strerror", None) or "not a possible path"
