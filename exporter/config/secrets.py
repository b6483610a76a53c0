"""Tokens and passwords: kept so that they do not show, and read from files and variables that hold nothing else."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from exporter.config.files import head, mode, parse_path, path_shown, reason
from exporter.core.document import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

Noun = Literal["token", "password"]
_BYTES: Final = 16 * 1024


class Secret:
    """A text that only `reveal()` returns: it never shows in str, repr, format strings or tracebacks."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


Found = tuple[Path | None, str | None, Secret | None]
"""A token or password: its file, its environment variable, the value of the variable."""


def read_secret(path: Path, noun: Noun) -> str:
    """The token or password in a file. Raises RefusedError that names the file and the cure."""
    shown, wanted = path_shown(path), f"it must be a file that holds the {noun}"
    try:
        regular = stat.S_ISREG(path.stat().st_mode)  # a pipe could be read only once, and might block
        raw = head(path, _BYTES + 1) if regular else b""
    except (OSError, ValueError) as error:
        raise RefusedError(f"cannot read {shown}: {reason(error)}; {wanted}") from None
    if not regular:
        raise RefusedError(f"{shown} is not a regular file; {wanted}")
    if len(raw) > _BYTES:
        raise RefusedError(f"{shown} is larger than {_BYTES // 1024} KiB; it must hold the {noun} alone")
    return _checked(raw, shown, noun)


def secret_path(base: Path, noun: Noun) -> Callable[[str], Path]:
    """A parser of paths, relative to `base`, of readable files that hold a token or password."""

    def parse(text: str) -> Path:
        path = parse_path(base)(text)
        if like_secret(text) and not mode(path, lambda _: True):
            raise RefusedError(f"leads to no file; is it the {noun} itself? Put that into a file and name it here")
        read_secret(path, noun)
        return path

    return parse


def secret_variable(name: str, noun: Noun) -> Callable[[str], Secret]:
    """A parser of the value of the environment variable `name`."""

    def parse(text: str) -> Secret:
        return Secret(_checked(text.encode("utf-8", "surrogatepass"), f"environment variable {name}", noun))

    return parse


def _checked(raw: bytes, holder: str, noun: Noun) -> str:
    text = _token(raw, holder) if noun == "token" else _password(raw, holder)
    if not text:
        raise RefusedError(f"{holder} is empty; put the {noun} into it")
    return text


def _token(raw: bytes, holder: str) -> str:
    token = raw.decode("ascii", "replace").strip()
    if not (token.isascii() and (not token or token.isprintable())):
        raise RefusedError(f"{holder} must hold the token alone, in one line of printable ASCII")
    if token.lower().startswith("bearer "):
        raise RefusedError(f"{holder} must hold the token alone, without the word Bearer")
    return token


def _password(raw: bytes, holder: str) -> str:
    try:
        password = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise RefusedError(f"{holder} must hold the password alone, in UTF-8") from None
    if not password.isprintable():
        raise RefusedError(f"{holder} must hold the password alone, in one line")
    return password


def like_secret(text: str) -> bool:
    """Whether the path of a missing file looks like the secret itself, written where its file belongs."""
    if "/" in text:
        return False
    return text.startswith(("eyJ", "sk-", "Bearer ")) or (
        len(text) >= 20 and "." not in text and any(c.isdigit() for c in text)  # noqa: PLR2004
    )
