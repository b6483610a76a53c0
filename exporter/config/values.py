"""Parsers of single values of the configuration: text in, value out.

Each raises RefusedError, whose text says what is wrong and repeats nothing that may be secret.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
import stat
import zoneinfo
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from exporter.config.files import mode, parse_path, path_shown
from exporter.config.settings import DEFAULT_PORT, Address
from exporter.core.document import RefusedError, quoted, shown
from exporter.counting.users import UserLabels
from exporter.pricing import money
from exporter.sources.database import location

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cyclopts import Token

DAY: Final = 86_400.0
"""Seconds."""
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_DURATION: Final = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit, _ in _UNITS))
NAME: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})")
_INTEGER: Final = re.compile(r"0|[1-9][0-9_]{0,11}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_PORT_MAX: Final = 65_535
_UNIX_PATH: Final = 107
"""Longest path of a socket, in bytes: unix(7)."""
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_ROUTE: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)+")
_DB_ID: Final = 256
_FILTER: Final = 256
"""Longest name of an agent or model, and longest id of a user, in characters: longer ones never are in labels."""
_AMOUNT: Final = re.compile(r"[0-9][0-9_]{0,20}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")
_USD_MOST: Final = 10**12


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `15s`, `1m30s`, `500ms`, `1d`: whole numbers, larger units first.

    Raises ValueError that says what to write instead.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        raise RefusedError(f"{quoted(text)} has no unit; write {text}s")
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise RefusedError(f"{quoted(text)} is not a duration such as 15s, 1m30s or 500ms")
    return sum(int(n) * size for n, (_, size) in zip(match.groups("0"), _UNITS, strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in _UNITS:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_address(text: str) -> Address:
    """A listen address: `:9777`, `127.0.0.1:9777`, `localhost:9777`, `[::1]:9777`, `unix:/run/exporter.sock`.

    Raises ValueError that says what to write instead.
    """
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    match = _ADDRESS.fullmatch(text)
    if match is None:
        if text.isascii() and text.isdigit():
            raise RefusedError(f"{quoted(text)} is not a listen address; write :{shown(text)}")
        if text.count(":") > 1 and "[" not in text:
            raise RefusedError(f"{quoted(text)}: an IPv6 address goes in brackets, such as [::1]:{DEFAULT_PORT}")
        raise RefusedError(
            f"{quoted(text)} is not a listen address such as :{DEFAULT_PORT} or 127.0.0.1:{DEFAULT_PORT}"
        )
    v6, host, port = match.groups()
    if int(port) > _PORT_MAX:
        raise RefusedError(f"{quoted(text)}: a port is at most {_PORT_MAX}")
    if v6 is not None and not _is_ipv6(v6):
        raise RefusedError(f"{quoted(text)}: no IPv6 address in the brackets")
    if host and not _HOST.fullmatch(host):
        raise RefusedError(f"{quoted(text)} has no valid host")
    return Address(v6 if v6 is not None else host, int(port))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Listen addresses, between commas."""
    addresses = tuple(map(parse_address, text.split(",")))
    if len(set(addresses)) < len(addresses):
        raise RefusedError("an address is given twice")
    return addresses


def _parse_unix(path: str) -> Address:
    if not path.startswith("/") or not path.isprintable() or len(path.encode()) > _UNIX_PATH:
        raise RefusedError(f"'unix:' needs the absolute path of a socket, of at most {_UNIX_PATH} bytes")
    return Address(path=path)


def parse_route(text: str) -> str:
    """The path of a route, such as `/metrics`; without a slash at its end, so '' for `/`."""
    if not _ROUTE.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a path such as /metrics")
    return text.rstrip("/")


def parse_external(text: str) -> str:
    """The path of the URL (or path) under which browsers reach a server."""
    if text.startswith("/"):
        return parse_route(text)
    path = urlsplit(parse_url(text)).path
    return parse_route(path) if path else ""


def parse_url(text: str) -> str:
    """Base URL of an AgentOS, scheme and host in lower case, without a trailing slash; a path prefix stays.

    Raises ValueError that never repeats the URL: a password may be in it.
    """
    # urlsplit would drop line breaks and tabs silently.
    if not text.isascii() or not text.isprintable() or re.search(r'[\s\\<>"]', text):
        raise RefusedError("a URL has no spaces, backslashes, quotes, control or non-ASCII characters")
    if not re.match("https?://", text, re.IGNORECASE):
        raise RefusedError("a URL starts with http:// or https://")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if "@" in text:
        raise RefusedError("a URL carries no user or password here; the token belongs into token_file or token_env")
    if "?" in text or "#" in text:
        raise RefusedError("a URL has no query (?) and no fragment (#) here")
    host = parts.hostname or ""
    if not (_HOST.fullmatch(host) or (parts.netloc.startswith("[") and _is_ipv6(host))):
        raise RefusedError("the URL has no valid host or port")
    if port == 0 or parts.netloc.endswith(":"):
        raise RefusedError(f"the URL's port must be between 1 and {_PORT_MAX}")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_list_url(text: str) -> str:
    """URL of a list of instances; it may have a query. Nothing of it is repeated: a password may be in it."""
    base, mark, query = text.partition("?")
    parse_url(base)
    if mark and (not query.isascii() or not query.isprintable() or re.search(r"[\s#]", query)):
        raise RefusedError("a URL has no spaces, fragments, control or non-ASCII characters")
    return text


def parse_label(text: str) -> str:
    """The name of a label."""
    if not _LABEL.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not the name of a label")
    return text


def parse_pattern(base: Path, suffixes: tuple[str, ...] = (".json", ".yml", ".yaml")) -> Callable[[str], str]:
    """A parser of paths, relative to `base`, that may have `*` in their last part, as Prometheus allows it."""

    def parse(text: str) -> str:
        path = parse_path(base)(text)
        if path.suffix not in suffixes:
            raise RefusedError(f"must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
        if "*" in str(path.parent):
            raise RefusedError("may have * in its last part alone")
        return str(path.absolute())

    return parse


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return text.isprintable() and "]" not in text


def default_name(url: str) -> str:
    """The name of the AgentOS of --agentos.url: host and port."""
    return re.sub(r"[^a-zA-Z0-9_.:-]", "", urlsplit(url).netloc)[:64]


def within(low: float, high: float) -> Callable[[str], float]:
    """A parser of durations between these bounds, in seconds."""

    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not low <= seconds <= high:
            bounds = f"{format_duration(low)} and {format_duration(high)}"
            raise RefusedError(f"must be between {bounds}, not {format_duration(seconds)}")
        return seconds

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers between these bounds."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text.replace("_", "")) <= high:
            raise RefusedError(f"must be a whole number between {low} and {high}, not {quoted(text)}")
        return int(text.replace("_", ""))

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        value = {"warning": "warn"}.get(text.lower(), text.lower())
        if value not in allowed:
            raise RefusedError(f"must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {quoted(text)}")
        return value

    return parse


def parse_switch(text: str) -> bool:
    """True or false, in any of YAML's spellings."""
    # What writes YAML 1.1 (Helm, say) turns `off` into `false`.
    value = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(text.lower())
    if value is None:
        raise RefusedError(f"must be true or false, not {quoted(text)}")
    return value


def parse_name(text: str) -> str:
    """A name that becomes the value of a label."""
    if not NAME.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a name: 1 to 64 of the characters a-z A-Z 0-9 _ . : -")
    return text


def parse_host(text: str) -> str:
    """The name of a host."""
    if not _HOST.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a host name")
    return text


def parse_db_id(text: str) -> str:
    """The id of a database of AgentOS."""
    if not text.strip() or not text.isprintable() or len(text) > _DB_ID:
        raise RefusedError(f"must be the id of a database: 1 to {_DB_ID} printable characters")
    return text


def parse_filter(text: str) -> str:
    """The value of a label, as a budget names it."""
    if not text.strip() or not text.isprintable() or len(text) > _FILTER:
        raise RefusedError(f"must be what the label shows: 1 to {_FILTER} printable characters")
    return text


def parse_user(text: str) -> str:
    """The id of a user. Nothing of it is repeated."""
    if not text.strip() or not text.isprintable() or len(text) > _FILTER:
        raise RefusedError(f"must be the id of a user: 1 to {_FILTER} printable characters")
    return text


def parse_user_labels(text: str) -> UserLabels:
    """How users are shown."""
    # What writes YAML 1.1 (Helm, say) turns `off` into `false`.
    value = {"false": "off", "no": "off"}.get(text.lower(), text.lower())
    if value not in set(UserLabels):
        raise RefusedError(f"must be off, hashed or plain, not {quoted(text)}")
    return UserLabels(value)


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def parse_time_zone(text: str) -> str:
    """The name of a time zone in the IANA database."""
    if text not in _time_zones():
        close = difflib.get_close_matches(text, sorted(_time_zones()), n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]}?" if close else ", such as UTC or Europe/Berlin"
        raise RefusedError(f"{quoted(text)} is no time zone of the IANA database{hint}")
    return text


def parse_usd(text: str) -> int:
    """An amount of USD above 0, in units of 1e-18 USD."""
    if not _AMOUNT.fullmatch(text) or not (amount := Decimal(text.replace("_", ""))) > 0:
        raise RefusedError(f"must be an amount of USD above 0, such as 5000 or 0.5, not {quoted(text)}")
    if amount > _USD_MOST or not (exact := money.units(amount)):
        raise RefusedError(f"must be between 1e-18 and {_USD_MOST} USD, not {quoted(text)}")
    return exact


def parse_identifier(text: str) -> str:
    """The name of a schema or table."""
    if not text.isprintable() or not location.IDENTIFIER.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a name: 1 to 63 characters, without quotes, % and backslashes")
    return text


def state_path(base: Path) -> Callable[[str], Path | None]:
    """A parser of the path of a state file, relative to `base`; None for memory."""

    def parse(text: str) -> Path | None:
        if text == "memory":
            return None
        if _SCHEME.match(text):
            raise RefusedError("must be the path of a file, memory, or the URL of a PostgreSQL database")
        if text.lower() in {":memory:", "memory"}:
            raise RefusedError(f"{quoted(text)}: did you mean memory?")
        path = parse_path(base)(text)
        if mode(path, stat.S_ISDIR):
            raise RefusedError(f"{path_shown(path)} is a directory; name a file in it")
        return path

    return parse


def read_by(parse: Callable[[str], object]) -> Callable[[object, Sequence[Token]], object]:
    """How a command line reads the value of a flag: a converter of cyclopts.

    Args:
        parse: Reads the text; a ValueError of it is a mistake of the user's, and is said so.

    """

    def convert(_type: object, tokens: Sequence[Token]) -> object:
        return parse(tokens[0].value)

    return convert
