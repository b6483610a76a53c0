"""File, environment and flags become one frozen `Config`; every mistake is reported at once, and no secret ever shows.

Flags win over the environment, the environment over the file, the file over the defaults. The file is read as YAML
nodes, never as YAML values: so each mistake has its line, `off` stays `off`, and `1:30` is no number of minutes.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import os
import re
import ssl
import stat
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import yaml

from exporter import REVISION_VARIABLE, __version__
from exporter.budgets import Budget, Period
from exporter.document import Problems, RefusedError, Table, attempt, compose, is_null, kind, quoted, scalar, shown
from exporter.errors import ConfigError
from exporter.pricing import money, pricefile
from exporter.sources.api import proxies
from exporter.sources.database import location
from exporter.totals import Limits
from exporter.users import UserLabels

DEFAULT_STATE: Final = Path("/var/lib/agentos-exporter/state.db")
DEFAULT_PORT: Final = 9777
ENV_PREFIX: Final = "AGENTOS_EXPORTER_"
LOG_LEVELS: Final = ("debug", "info", "warn", "error")
LOG_FORMATS: Final = ("logfmt", "json")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of `run`. `default` is what the help shows; a flag that is not given is None in the `flags` of `load`."""

    spelling: str
    key: str
    env: str
    help: str
    default: str | None = None
    metavar: str | None = None


def _flag(spelling: str, metavar: str, text: str, default: str | None = None, *, key: str | None = None) -> Flag:
    name = re.sub(r"[.-]", "_", spelling.removeprefix("--"))
    return Flag(spelling, key or name, ENV_PREFIX + name.upper(), text, default, metavar)


FLAGS: Final = (
    _flag("--config.file", "FILE", "YAML file with the whole configuration"),
    _flag("--agentos.url", "URL", "the one AgentOS to read; takes the place of the list in the file"),
    _flag("--state", "PATH", "state file, or memory: counters restart at 0 with the process", str(DEFAULT_STATE)),
    _flag("--web.listen-address", "ADDRESS", "host and port to serve on", f":{DEFAULT_PORT}", key="listen_address"),
    _flag("--web.config.file", "FILE", "TLS and basic auth of the web server (not built yet)"),
    _flag("--log.level", "LEVEL", f"one of {', '.join(LOG_LEVELS)}", "info"),
    _flag("--log.format", "FORMAT", "logfmt or json; default: logfmt, on a terminal colours"),
)
"""Every flag that configures the daemon, its key in the `flags` of `load`, and its environment variable."""

VARIABLES: Final = (
    (f"{ENV_PREFIX}TOKEN", "token for the AgentOS of --agentos.url"),
    (f"{ENV_PREFIX}TOKEN_FILE", "file that holds the token for the AgentOS of --agentos.url, read again at each poll"),
)
"""Environment variables without a flag (a token on a command line would show in `ps`): (name, help)."""


class Secret:
    """A text that shows only to who asks for it by `reveal()`: never in str, repr, format strings or tracebacks."""

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


@dataclass(frozen=True, slots=True)
class Tls:
    """How an AgentOS proves itself (`ca_file`, `server_name`), and we to it (`cert_file`, `key_file`). PEM files."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """A client context with these files, read anew; without `ca_file` it trusts the system's authorities.

        Raises OSError (ssl.SSLError is one) when a file cannot be read or is not what it should be.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            # Without a password callback an encrypted key would ask on the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
        return context


@dataclass(frozen=True, slots=True)
class Database:
    """One database of an AgentOS. `password` is what `password_env` held at start; a `password_file` is read again."""

    location: location.Location
    password: Secret | None = None
    password_file: Path | None = None
    password_env: str | None = None

    def read_password(self) -> str | None:
        """The password of this moment; None where none is configured. Raises ConfigError that names the file."""
        if self.password_file is None:
            return None if self.password is None else self.password.reveal()
        try:
            return _read_password(self.password_file)
        except RefusedError as error:
            raise ConfigError([f"{self.location}: password_file: {error}"]) from None


@dataclass(frozen=True, slots=True)
class AgentOS:
    """One AgentOS instance, read through its API (`url`) or from its `databases`.

    `name` is the value of the label `agentos`; `url` has no trailing slash, and is empty where there are databases.
    `token` is what `token_env` held at start; a `token_file` is read again at each `read_token`. `db_ids` is None where
    all databases are to be read. `enrich_runs` asks for the detail of each run: cache and reasoning tokens, time to
    first token. `proxy` is the URL of the proxy that leads to `url`, None for none: that of `proxy_url`, else what the
    proxy variables of the environment say.
    """

    name: str
    url: str
    token: Secret | None = None
    token_file: Path | None = None
    token_env: str | None = None
    db_ids: tuple[str, ...] | None = None
    tls: Tls | None = None
    enrich_runs: bool = False
    databases: tuple[Database, ...] = ()
    proxy: Secret | None = None

    @property
    def where(self) -> str:
        """Where it is read, for people: its URL, or its databases without users and passwords."""
        return self.url or ", ".join(str(one.location) for one in self.databases)

    def read_token(self) -> str | None:
        """The bearer token of this moment, printable ASCII; None where none is configured.

        Raises ConfigError that names the file and the cure.
        """
        if self.token_file is None:
            return None if self.token is None else self.token.reveal()
        try:
            return _read_token(self.token_file)
        except RefusedError as error:
            raise ConfigError([f"agentos {self.name}: token_file: {error}"]) from None


class Address(NamedTuple):
    """Where to listen; an empty host stands for all interfaces, port 0 for any free one."""

    host: str = ""
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the daemon runs with. Times are in seconds; `state` is None for memory, `log_format` None for automatic."""

    agentos: tuple[AgentOS, ...]
    poll_interval: float = 15.0
    poll_deadline: float = 60.0
    sessions_interval: float = 60.0
    overlap: float = 60.0
    trace_horizon: float = 3600.0
    initial_lookback: float = 3600.0
    zero_hold: float = 60.0
    stall_budget: float = 0.05
    state: Path | None = DEFAULT_STATE
    limits: Limits = field(default_factory=Limits)
    user_labels: UserLabels = UserLabels.OFF
    prices: Path | None = None
    prices_update: bool = False
    budgets: tuple[Budget, ...] = ()
    listen_address: Address = field(default_factory=Address)
    log_level: str = "info"
    log_format: str | None = None
    config_file: Path | None = None
    warnings: tuple[str, ...] = ()
    """what is odd but allowed, one line each, to be logged at start"""


def load(flags: Mapping[str, object], environ: Mapping[str, str], *, check_prices: bool = True) -> Config:
    """The configuration that flags, environment and file ask for.

    `flags` has the keys of `FLAGS`; None stands for not given, other keys are passed over. An empty environment
    variable counts as not given. Files that it names are read: the configuration, tokens, certificates, and the price
    file unless `check_prices` is False. Raises ConfigError with every problem found; nothing else, whatever the input.
    """
    return _Loader(flags, environ, check_prices=check_prices).load()


_SPELLED: Final = {"user_labels": "labels.user"}


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Keys of the file (and flags) that differ between two configurations, as they are spelled there."""
    kept = {"config_file", "warnings"}
    names = (one.name for one in fields(Config) if one.name not in kept)
    return tuple(_SPELLED.get(name, name) for name in names if getattr(old, name) != getattr(new, name))


# --- Values: text in, value out; RefusedError says what is wrong and repeats nothing that may be secret -------------


_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_DURATION: Final = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit, _ in _UNITS))
_NAME: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})")
_INTEGER: Final = re.compile(r"0|[1-9][0-9_]{0,11}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_PORT_MAX: Final = 65_535
_TOKEN_BYTES: Final = 16 * 1024
_DB_ID: Final = 256
_FILTER: Final = 256
"""Longest name of an agent or model, and longest id of a user, in characters: longer ones never are in labels."""
_AMOUNT: Final = re.compile(r"[0-9][0-9_]{0,20}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")
_USD_MOST: Final = 10**12


def _path_shown(path: Path) -> str:
    return shown(str(path), 4096)


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `15s`, `1m30s`, `500ms`, `1d`: whole numbers, larger units first.

    Raises ValueError that says what to write instead.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        raise RefusedError(f"{quoted(text)} has no unit; write {text}s")
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise RefusedError(f"{quoted(text)} is not a duration such as 15s, 1m30s or 500ms")
    return sum(int(n) * size for n, (_, size) in zip(found.groups("0"), _UNITS, strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_address(text: str) -> Address:
    """Host and port of a listen address: `:9777`, `127.0.0.1:9777`, `localhost:9777`, `[::1]:9777`.

    Raises ValueError that says what to write instead.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if text.isascii() and text.isdigit():
            raise RefusedError(f"{quoted(text)} is not a listen address; write :{shown(text)}")
        if text.count(":") > 1 and "[" not in text:
            raise RefusedError(f"{quoted(text)}: an IPv6 address goes in brackets, such as [::1]:{DEFAULT_PORT}")
        raise RefusedError(
            f"{quoted(text)} is not a listen address such as :{DEFAULT_PORT} or 127.0.0.1:{DEFAULT_PORT}"
        )
    v6, host, port = found.groups()
    if int(port) > _PORT_MAX:
        raise RefusedError(f"{quoted(text)}: a port is at most {_PORT_MAX}")
    if v6 is not None and not _is_ipv6(v6):
        raise RefusedError(f"{quoted(text)}: no IPv6 address in the brackets")
    if host and not _HOST.fullmatch(host):
        raise RefusedError(f"{quoted(text)} has no valid host")
    return Address(v6 if v6 is not None else host, int(port))


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


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return text.isprintable() and "]" not in text


def _default_name(url: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_.:-]", "", urlsplit(url).netloc)[:64]


def _within(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not low <= seconds <= high:
            bounds = f"{format_duration(low)} and {format_duration(high)}"
            raise RefusedError(f"must be between {bounds}, not {format_duration(seconds)}")
        return seconds

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text.replace("_", "")) <= high:
            raise RefusedError(f"must be a whole number between {low} and {high}, not {quoted(text)}")
        return int(text.replace("_", ""))

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        value = {"warning": "warn"}.get(text.lower(), text.lower())
        if value not in allowed:
            raise RefusedError(f"must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {quoted(text)}")
        return value

    return parse


def _switch(text: str) -> bool:
    # What writes YAML 1.1 (Helm, say) turns `off` into `false`.
    value = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(text.lower())
    if value is None:
        raise RefusedError(f"must be true or false, not {quoted(text)}")
    return value


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a name: 1 to 64 of the characters a-z A-Z 0-9 _ . : -")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a host name")
    return text


def _db_id(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _DB_ID:
        raise RefusedError(f"must be the id of a database: 1 to {_DB_ID} printable characters")
    return text


def _filter(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _FILTER:
        raise RefusedError(f"must be what the label shows: 1 to {_FILTER} printable characters")
    return text


def _user(text: str) -> str:
    # Nothing of it is repeated.
    if not text.strip() or not text.isprintable() or len(text) > _FILTER:
        raise RefusedError(f"must be the id of a user: 1 to {_FILTER} printable characters")
    return text


def _user_labels(text: str) -> UserLabels:
    # What writes YAML 1.1 (Helm, say) turns `off` into `false`.
    value = {"false": "off", "no": "off"}.get(text.lower(), text.lower())
    if value not in set(UserLabels):
        raise RefusedError(f"must be off, hashed or plain, not {quoted(text)}")
    return UserLabels(value)


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _time_zone(text: str) -> str:
    if text not in _time_zones():
        close = difflib.get_close_matches(text, sorted(_time_zones()), n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]}?" if close else ", such as UTC or Europe/Berlin"
        raise RefusedError(f"{quoted(text)} is no time zone of the IANA database{hint}")
    return text


def _usd(text: str) -> int:
    if not _AMOUNT.fullmatch(text) or not (amount := Decimal(text.replace("_", ""))) > 0:
        raise RefusedError(f"must be an amount of USD above 0, such as 5000 or 0.5, not {quoted(text)}")
    if amount > _USD_MOST or not (exact := money.units(amount)):
        raise RefusedError(f"must be between 1e-18 and {_USD_MOST} USD, not {quoted(text)}")
    return exact


def _file_path(base: Path) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        if not text.strip() or "\0" in text:
            raise RefusedError("must be the path of a file")
        return base / text

    return parse


def _identifier(text: str) -> str:
    if not text.isprintable() or not location.IDENTIFIER.fullmatch(text):
        raise RefusedError(f"{quoted(text)} is not a name: 1 to 63 characters, without quotes, % and backslashes")
    return text


def _password_path(base: Path) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        path = _file_path(base)(text)
        if _like_token(text) and not _mode(path, lambda _: True):
            raise RefusedError("leads to no file; is it the password itself? Put that into a file and name it here")
        _read_password(path)
        return path

    return parse


def _state(base: Path) -> Callable[[str], Path | None]:
    def parse(text: str) -> Path | None:
        if text == "memory":
            return None
        scheme = _SCHEME.match(text)
        if scheme and scheme[1].lower().startswith("postgres"):
            raise RefusedError(f"a PostgreSQL state is {_NOT_BUILT}; give the path of a file, or memory")
        if scheme:
            raise RefusedError("must be the path of a file, or memory, not a URL")
        if text.lower() in {":memory:", "memory"}:
            raise RefusedError(f"{quoted(text)}: did you mean memory?")
        path = _file_path(base)(text)
        if _mode(path, stat.S_ISDIR):
            raise RefusedError(f"{_path_shown(path)} is a directory; name a file in it")
        return path

    return parse


_NOT_BUILT: Final = f"not built in this version ({__version__})"


def _mode(path: Path, test: Callable[[int], bool]) -> bool:
    try:
        return test(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "not a possible path"


def _checked_token(raw: bytes, holder: str, cure: str) -> str:
    token = raw.decode("ascii", "replace").strip()
    if not token:
        raise RefusedError(f"{holder} is empty; {cure}")
    if not (token.isascii() and token.isprintable()):
        raise RefusedError(f"{holder} must hold the token alone, in one line of printable ASCII")
    if token.lower().startswith("bearer "):
        raise RefusedError(f"{holder} must hold the token alone, without the word Bearer")
    return token


def _read_token(path: Path) -> str:
    shown = _path_shown(path)
    try:
        regular = stat.S_ISREG(path.stat().st_mode)  # a pipe could be read only once, and might block
        raw = _head(path, _TOKEN_BYTES + 1) if regular else b""
    except (OSError, ValueError) as error:
        raise RefusedError(f"cannot read {shown}: {_reason(error)}; it must be a file that holds the token") from None
    if not regular:
        raise RefusedError(f"{shown} is not a regular file; it must be a file that holds the token")
    if len(raw) > _TOKEN_BYTES:
        raise RefusedError(f"{shown} is larger than {_TOKEN_BYTES // 1024} KiB; it must hold the token alone")
    return _checked_token(raw, shown, "put the token into it")


def _checked_password(raw: bytes, holder: str) -> str:
    try:
        password = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise RefusedError(f"{holder} must hold the password alone, in UTF-8") from None
    if not password:
        raise RefusedError(f"{holder} is empty; put the password into it")
    if not password.isprintable():
        raise RefusedError(f"{holder} must hold the password alone, in one line")
    return password


def _read_password(path: Path) -> str:
    shown = _path_shown(path)
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        raw = _head(path, _TOKEN_BYTES + 1) if regular else b""
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"cannot read {shown}: {_reason(error)}; it must be a file that holds the password"
        ) from None
    if not regular:
        raise RefusedError(f"{shown} is not a regular file; it must be a file that holds the password")
    if len(raw) > _TOKEN_BYTES:
        raise RefusedError(f"{shown} is larger than {_TOKEN_BYTES // 1024} KiB; it must hold the password alone")
    return _checked_password(raw, shown)


def _like_token(text: str) -> bool:
    """Whether a path that leads nowhere is rather the token itself, put where its file belongs."""
    if "/" in text:
        return False
    return text.startswith(("eyJ", "sk-", "Bearer ")) or (
        len(text) >= 20 and "." not in text and any(c.isdigit() for c in text)  # noqa: PLR2004
    )


# --- The file: YAML nodes, with their lines -------------------------------------------------------------------------

_FILE_BYTES: Final = 1024 * 1024
_DEPTH: Final = 16


def _compose(path: Path, where: str) -> yaml.MappingNode | None:
    """The top mapping of a file, None if the file says nothing. Raises ConfigError."""
    shown = _path_shown(path)
    try:
        raw = _head(path, _FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{where}: cannot read {shown}: {_reason(error)}"]) from None
    if len(raw) > _FILE_BYTES:
        raise ConfigError([f"{where}: {shown} is larger than 1 MiB"])
    return _parse(raw)


def _parse(raw: bytes) -> yaml.MappingNode | None:
    node = compose(raw, deepest=_DEPTH, hide=True)
    if node is None or (isinstance(node, yaml.ScalarNode) and is_null(node)):
        return None
    if not isinstance(node, yaml.MappingNode):
        place = f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
        raise ConfigError([f"{place}: the top level must be a mapping (key: value), not {kind(node)}"])
    return node


class _Table(Table):
    """A mapping of the configuration file."""

    def hint(self, key: str) -> str:
        """See Table."""
        return _HINTS.get(key) or super().hint(key)


# --- The keys of the file -------------------------------------------------------------------------------------------

_DAY: Final = 86_400.0
_DURATIONS: Final = {
    "poll_interval": (1.0, 3600.0),
    "poll_deadline": (1.0, 600.0),
    "sessions_interval": (1.0, _DAY),
    "overlap": (1.0, 3600.0),
    "trace_horizon": (1.0, _DAY),  # span ids are kept for a day: beyond, an open trace could not come back
    "initial_lookback": (0.0, 7 * _DAY),
    "zero_hold": (0.0, 600.0),
    "stall_budget": (0.001, 10.0),
}
"""Lowest and highest value, in seconds."""

_NOT_SHORTER: Final = (
    ("overlap", "poll_interval", "it must outlast a poll, clock skew and commit lag"),
    ("sessions_interval", "poll_interval", "sessions are not asked for more often than traces"),
)

_TOP: Final = (*_DURATIONS, "state", "agentos", "labels", "limits", "prices", "prices_update", "budgets")
_API_KEYS: Final = ("token_file", "token_env", "db_ids", "tls", "proxy_url")
_TABLES: Final = tuple(one.name for one in fields(location.Tables))
_DATABASE_KEYS: Final = ("schema", "password_file", "password_env", *_TABLES)
_INSTANCE: Final = ("name", "url", *_API_KEYS, "enrich_runs", "database", *_DATABASE_KEYS)
_DATABASE: Final = ("url", *_DATABASE_KEYS)
_BUDGET: Final = ("name", "agentos", "root", "agent", "model", "user", "period", "time_zone", "limit_usd")
_TLS: Final = ("ca_file", "cert_file", "key_file", "server_name")
_HINTS: Final = {
    "token": "a token does not belong into this file: use token_file or token_env",
    "password": "a password does not belong into this file",
    "listen_address": "use the flag --web.listen-address",
    "log_level": "use the flag --log.level",
    "log_format": "use the flag --log.format",
    "insecure_skip_verify": "name the authority in ca_file instead",
}


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several databases may share."""

    schema: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    password: Secret | None = None
    tables: Mapping[str, str] = field(default_factory=dict)


class _Loader:
    """One call of `load`: the problems and warnings that gather on the way."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str], *, check_prices: bool) -> None:
        self.flags, self.environ = flags, environ
        self.refused_variables: set[str] = set()
        self.check_prices = check_prices
        self.problems = Problems()
        self.warnings: list[str] = []
        self.table: _Table | None = None
        self.token_envs: set[str] = set()
        self.base = Path()
        self.file: Path | None = None
        self.names: dict[str, int] = {}
        """names in the list of AgentOS instances, those of refused ones too → place"""
        self.budgeted: list[_Table] = []

    def load(self) -> Config:
        self._read_file()
        values: dict[str, Any] = {}
        if self.table is not None:
            values = self._from_file(self.table)
        values.update(self._from_flags())
        self._check_budgeted(values)
        self._warn_of_memory(values)
        self._unknown_variables()
        if "agentos" not in values:
            self.problems.add(
                "agentos",
                "no AgentOS to read; list one under agentos in the file of --config.file, or give --agentos.url",
            )
        self.problems.check()
        return Config(config_file=self.file, warnings=tuple(self.warnings), **values)

    def _warn_of_memory(self, values: Mapping[str, Any]) -> None:
        """What lives in the state file does not outlive a process that has none."""
        if values.get("state", DEFAULT_STATE) is not None:
            return
        if values.get("user_labels") is UserLabels.HASHED:
            self.warnings.append(
                "labels.user: with state: memory the hashes have a new key at each start, so users get new labels"
            )
        if values.get("budgets"):
            self.warnings.append("budgets: with state: memory what was spent is forgotten at each start")

    # Flags and environment

    def _given(self, spelling: str) -> tuple[str, str] | None:
        """Text of a flag or its variable, and which of the two it was."""
        flag = next(flag for flag in FLAGS if flag.spelling == spelling)
        value = self.flags.get(flag.key)
        if value is not None:
            if isinstance(value, (str, Path)) and str(value):
                return str(value), flag.spelling
            self.problems.add(flag.spelling, "has no value")
            return None
        value = self.environ.get(flag.env)
        return (value, flag.env) if value else None

    def _flag_value(self, values: dict[str, Any], spelling: str, key: str, parse: Callable[[str], object]) -> None:
        given = self._given(spelling)
        if given is None:
            return
        try:
            values[key] = parse(given[0])
        except RefusedError as error:
            self.problems.add(given[1], str(error))

    def _from_flags(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self._flag_value(values, "--state", "state", _state(_here()))
        self._flag_value(values, "--web.listen-address", "listen_address", parse_address)
        self._flag_value(values, "--log.level", "log_level", _choice(*LOG_LEVELS))
        self._flag_value(values, "--log.format", "log_format", _choice(*LOG_FORMATS))
        web_config = self._given("--web.config.file")
        if web_config is not None:
            self.problems.add(web_config[1], f"{_NOT_BUILT}; remove it")
        url = self._given("--agentos.url")
        if url is not None:
            values["agentos"] = self._single(*url)
        else:
            for name, _ in VARIABLES:
                if self.environ.get(name) and name not in self.token_envs:
                    self.warnings.append(
                        f"{name}: not used without --agentos.url; in the file it is token_env or token_file"
                    )
        return values

    def _single(self, text: str, where: str) -> tuple[AgentOS, ...]:
        """The one AgentOS of --agentos.url."""
        listed = None if self.table is None else self.table.entries.get("agentos")
        if listed is not None:
            self.warnings.append(f"agentos: the list in the file is not used; {where} takes its place")
        url = attempt(parse_url, text, where, self.problems)
        (env, _), (file_env, _) = VARIABLES
        token, file = self.environ.get(env), self.environ.get(file_env)
        secret, path = None, None
        if token and file:
            self.problems.add(env, f"give it or {file_env}, not both")
        elif token:
            secret = self._token_variable(env, token, env)
        elif file:
            path = self._token_path(file, _here(), file_env)
        if url is None:
            return ()
        proxy = self._environment_proxy(url)
        return (AgentOS(_default_name(url), url, secret, path, env if secret else None, proxy=proxy),)

    def _proxy(self, entry: _Table, url: str | None) -> Secret | None:
        """The proxy of one AgentOS: its `proxy_url`, a URL or `none`, else that of the environment."""
        if "proxy_url" not in entry.entries:
            return None if url is None else self._environment_proxy(url)

        def parse(text: str) -> tuple[Secret | None]:
            if text.lower() == "none":
                return (None,)
            try:
                return (Secret(proxies.proxy_url(text)),)
            except proxies.ProxyRefused as error:
                raise RefusedError(f"{error}; or none") from None

        # None says none here, so what was refused has to be told apart.
        found = entry.parsed("proxy_url", parse)
        return None if found is None else found[0]

    def _environment_proxy(self, url: str) -> Secret | None:
        try:
            found = proxies.chosen(url, self.environ)
        except proxies.ProxyRefused as error:
            if error.variable not in self.refused_variables:  # once, however many AgentOS instances it concerns
                self.problems.add(error.variable, str(error))
            self.refused_variables.add(error.variable)
            return None
        return None if found is None else Secret(found)

    def _unknown_variables(self) -> None:
        known = {REVISION_VARIABLE} | {flag.env for flag in FLAGS} | {name for name, _ in VARIABLES} | self.token_envs
        for name in sorted(self.environ):
            # Kubernetes sets such variables in every pod beside a Service called agentos-exporter.
            foreign = re.match(rf"{ENV_PREFIX}(?:SERVICE|PORT)(?:_|$)", name)
            if name.startswith(ENV_PREFIX) and name not in known and not foreign:
                ours = [each.removeprefix(ENV_PREFIX) for each in sorted(known)]
                close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), ours, n=1, cutoff=0.7)
                hint = f"; did you mean {ENV_PREFIX}{close[0]}?" if close else ""
                self.warnings.append(f"{shown(name)}: not a setting of agentos-exporter{hint}")

    def _token_variable(self, name: str, value: str, where: str, node: yaml.Node | int = 0) -> Secret | None:
        def parse(text: str) -> Secret:
            raw = text.encode("utf-8", "surrogatepass")
            return Secret(_checked_token(raw, f"environment variable {name}", "put the token into it"))

        return attempt(parse, value, where, self.problems, node)

    def _token_path(self, text: str, base: Path, where: str, node: yaml.Node | int = 0) -> Path | None:
        path = attempt(_file_path(base), text, where, self.problems, node)
        if path is None:
            return None
        if _like_token(text) and not _mode(path, lambda _: True):
            self.problems.add(
                where, "leads to no file; is it the token itself? Put that into a file and name it here", node
            )
            return None
        return None if attempt(lambda _: _read_token(path), text, where, self.problems, node) is None else path

    # The file

    def _read_file(self) -> None:
        given = self._given("--config.file")
        if given is None:
            return
        path = attempt(_file_path(_here()), given[0], given[1], self.problems)
        if path is None:
            return
        self.file, self.base = path, path.parent
        top = _compose(path, given[1])
        if top is not None:
            self.table = _Table(top, "", _TOP, self.problems)

    def _from_file(self, table: _Table) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, bounds in _DURATIONS.items():
            seconds = table.parsed(key, _within(*bounds))
            if seconds is not None:
                values[key] = seconds
        self._relations(table, values)
        # None says memory here, so what was refused has to be told apart.
        state = table.parsed("state", lambda text: (_state(self.base)(text),))
        if state is not None:
            values["state"] = state[0]
        limits = table.mapping("limits", ("series_per_metric", "values_per_label", "label_value_length"))
        if limits is not None:
            default = Limits()
            values["limits"] = Limits(
                limits.parsed("series_per_metric", _integer(1, 1_000_000)) or default.series_per_metric,
                limits.parsed("values_per_label", _integer(1, 100_000)) or default.values_per_label,
                limits.parsed("label_value_length", _integer(32, 1024)) or default.label_value_length,
            )
        labels = table.mapping("labels", ("user",))
        if labels is not None:
            values["user_labels"] = labels.parsed("user", _user_labels) or UserLabels.OFF
        prices = table.parsed("prices", _file_path(self.base))
        if prices is not None:
            values["prices"] = prices
            if self.check_prices:
                self._check_prices(table, prices)
        update = table.parsed("prices_update", _switch)
        if update is not None:
            values["prices_update"] = update
        instances = self._instances(table)
        if instances is not None:
            values["agentos"] = instances
        values["budgets"] = self._budgets(table)
        return values

    def _budgets(self, table: _Table) -> tuple[Budget, ...]:
        found: list[Budget] = []
        names: dict[str, int] = {}
        for i, node in enumerate(table.items("budgets", "[{name: team, period: month, limit_usd: 5000}]") or ()):
            path = f"budgets[{i}]"
            if not isinstance(node, yaml.MappingNode):
                self.problems.add(path, f"must be a mapping with name, period and limit_usd, not {kind(node)}", node)
                continue
            entry = _Table(node, path, _BUDGET, self.problems)
            self.budgeted.append(entry)
            budget = self._budget(entry)
            name = entry.entries.get("name")
            if isinstance(name, yaml.ScalarNode) and _NAME.fullmatch(name.value):
                if name.value in names:
                    entry.add("name", f"{quoted(name.value)} is already the name of budgets[{names[name.value]}]")
                names.setdefault(name.value, i)
            if budget is not None:
                found.append(budget)
        return tuple(found)

    @staticmethod
    def _budget(entry: _Table) -> Budget | None:
        for key, meaning in (
            ("name", "it becomes the value of the label budget"),
            ("period", "day, week or month"),
            ("limit_usd", "it is what may be spent in a period"),
        ):
            if key not in entry.entries:
                entry.add(key, f"is missing; {meaning}")
        name, limit = entry.parsed("name", _name), entry.parsed("limit_usd", _usd)
        period = entry.parsed("period", _choice(*Period))
        time_zone = entry.parsed("time_zone", _time_zone)
        filters = {key: entry.parsed(key, _filter) or "" for key in ("agentos", "root", "agent", "model")}
        user = entry.parsed("user", _user) or ""
        if name is None or limit is None or period is None:
            return None
        return Budget(name=name, period=Period(period), limit=limit, time_zone=time_zone or "UTC", user=user, **filters)

    def _check_budgeted(self, values: Mapping[str, Any]) -> None:
        """A budget for an AgentOS that nobody reads would never see any spending."""
        listed: tuple[AgentOS, ...] = values.get("agentos", ())
        names = {one.name for one in listed}
        if names <= self.names.keys():  # the list of the file, not --agentos.url
            names = set(self.names)
        for entry in self.budgeted:
            node = entry.entries.get("agentos")
            if names and isinstance(node, yaml.ScalarNode) and node.value and not is_null(node):
                self._check_agentos(entry, node.value, sorted(names))

    @staticmethod
    def _check_agentos(entry: _Table, name: str, names: list[str]) -> None:
        if name not in names:
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")  # noqa: PLR2004
            entry.add("agentos", f"{quoted(name)} is not the name of an AgentOS; known are {shown}")

    @staticmethod
    def _check_prices(table: _Table, path: Path) -> None:
        """Every problem of the price file, too, each with its line in that file."""
        try:
            pricefile.load(path)
        except ConfigError as error:
            for problem in error.problems:
                table.add("prices", problem)

    @staticmethod
    def _relations(table: _Table, values: Mapping[str, float]) -> None:
        """Some times must not be shorter than others; only what was given and is itself in order is compared."""
        defaults = Config(agentos=())
        for key, floor, why in _NOT_SHORTER:
            refused = any(k in table.entries and k not in values for k in (key, floor))
            value, least = values.get(key, getattr(defaults, key)), values.get(floor, getattr(defaults, floor))
            if refused or value >= least:
                continue
            if key in values:
                table.add(
                    key, f"must be at least {floor} ({format_duration(least)}), not {format_duration(value)}: {why}"
                )
            else:
                message = f"{format_duration(least)} needs {key} to be given, and at least as long: {why}"
                table.add(floor, message)

    def _instances(self, table: _Table) -> tuple[AgentOS, ...] | None:
        nodes = table.items("agentos", "[{name: prod, url: https://agentos.example.com}]")
        if not nodes:
            # An empty list is no list; anything else was refused already.
            return () if nodes is None and "agentos" in table.entries else None
        found: list[AgentOS] = []
        names = self.names
        seen: list[tuple[int, AgentOS]] = []
        for i, node in enumerate(nodes):
            path = f"agentos[{i}]"
            if not isinstance(node, yaml.MappingNode):
                self.problems.add(path, f"must be a mapping with name and url, not {kind(node)}", node)
                continue
            entry = _Table(node, path, _INSTANCE, self.problems)
            agentos = self._instance(entry)
            name = entry.entries.get("name")
            if name is not None and isinstance(name, yaml.ScalarNode) and _NAME.fullmatch(name.value):
                if name.value in names:
                    entry.add("name", f"{quoted(name.value)} is already the name of agentos[{names[name.value]}]")
                names.setdefault(name.value, i)
            if agentos is None:
                continue
            for j, other in seen:
                keys = {one.location.key for one in agentos.databases}
                shared = keys.intersection(one.location.key for one in other.databases)
                if shared or (agentos.url and other.url == agentos.url and _share(other.db_ids, agentos.db_ids)):
                    self.warnings.append(
                        f"{path}: reads the same databases as agentos[{j}]; their traces count under both names"
                    )
            seen.append((i, agentos))
            found.append(agentos)
        return tuple(found)

    def _instance(self, entry: _Table) -> AgentOS | None:
        name = entry.parsed("name", _name)
        if "name" not in entry.entries:
            entry.add("name", "is missing; it becomes the value of the label agentos")
        url = entry.parsed("url", parse_url)
        enrich_runs = entry.parsed("enrich_runs", _switch) or False
        database = entry.entries.get("database")
        if database is not None and is_null(database):
            database = None
        if "url" in entry.entries and database is not None:
            entry.add("database", "give url or database, not both")
        elif "url" not in entry.entries and database is None:
            entry.add("url", "is missing; it is the base URL of the AgentOS")
        token_file, token_env, secret = self._token(entry)
        db_ids = self._db_ids(entry)
        tls = self._tls(entry, url)
        databases = self._databases(entry, database)
        if database is not None:
            self._only_with_url(entry, enrich_runs=enrich_runs)
            return None if name is None or not databases else AgentOS(name, "", databases=databases)
        if name is None or url is None:
            return None
        proxy = self._proxy(entry, url)
        return AgentOS(name, url, secret, token_file, token_env, db_ids, tls, enrich_runs, proxy=proxy)

    @staticmethod
    def _only_with_url(entry: _Table, *, enrich_runs: bool) -> None:
        for key in _API_KEYS:
            if key in entry.entries and "url" not in entry.entries:
                entry.add(key, "makes no sense with database: it belongs to url")
        if enrich_runs and "url" not in entry.entries:
            entry.add("enrich_runs", "makes no sense with database: its spans have the details")

    def _databases(self, entry: _Table, node: yaml.Node | None) -> tuple[Database, ...]:
        """The databases of an AgentOS: one URL, or a list of URLs and mappings; keys beside it hold for all of them."""
        if node is None:
            for key in _DATABASE_KEYS:
                if key in entry.entries:
                    entry.add(key, "makes no sense without database")
            return ()
        if isinstance(node, yaml.SequenceNode):
            if not node.value:
                entry.add("database", "is empty; name a database")
            parts = [(f"{entry.where('database')}[{i}]", part) for i, part in enumerate(node.value)]
        else:
            parts = [(entry.where("database"), node)]
        shared = self._shared_of(entry)
        found: list[Database] = []
        for where, part in parts:
            one = self._database(where, part, shared, {one.location.key for one in found})
            if one is not None:
                found.append(one)
        return tuple(found)

    def _database(self, where: str, node: yaml.Node, shared: _Shared, known: set[str]) -> Database | None:
        """One database: its URL, or a mapping with the URL and what is beside it."""
        if isinstance(node, yaml.MappingNode):
            table = _Table(node, where, _DATABASE, self.problems)
            if "url" not in table.entries:
                table.add("url", "is missing; it is the URL of the database")
                return None
            shared, node, where = self._shared_of(table, shared), table.entries["url"], table.where("url")
        text = scalar(node, where, self.problems)
        parse = functools.partial(self._location, shared=shared)
        place = None if text is None else attempt(parse, text, where, self.problems, node)
        if place is None:
            return None
        if place.key in known:
            self.problems.add(where, "is given twice", node)
        return Database(place, shared.password, shared.password_file, shared.password_env)

    def _location(self, text: str, shared: _Shared) -> location.Location:
        try:
            place = location.parse(text, self.base, shared.schema, location.Tables(**shared.tables))
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if place.engine is location.Engine.SQLITE:
            for key in ("schema", "password_file", "password_env"):
                if getattr(shared, key) is not None:
                    raise RefusedError(f"is a file, which has no {key}; remove it")
        return place

    def _shared_of(self, table: _Table, outer: _Shared | None = None) -> _Shared:
        """What stands beside a URL; what it leaves out is taken from `outer`."""
        outer = outer or _Shared()
        schema = table.parsed("schema", _identifier)
        tables = {key: name for key in _TABLES if (name := table.parsed(key, _identifier)) is not None}
        file, env = table.text("password_file"), table.text("password_env")
        password, path = outer.password, outer.password_file
        if "password_file" in table.entries and "password_env" in table.entries:
            table.add("password_env", "give password_file or password_env, not both")
        elif file is not None:
            password, env = None, None
            path = table.parsed("password_file", _password_path(self.base))
        elif env is not None:
            path, password = None, self._password_variable(table, env)
        else:
            env = outer.password_env
        return _Shared(schema or outer.schema, path, env, password, {**outer.tables, **tables})

    def _password_variable(self, table: _Table, env: str) -> Secret | None:
        if not _VARIABLE.fullmatch(env):
            # Rather the password itself, put where the variable's name belongs: it is not repeated.
            table.add("password_env", "is not the name of an environment variable")
            return None
        self.token_envs.add(env)
        value = self.environ.get(env)
        if value is None:
            shown = "its environment variable" if _like_token(env) else f"environment variable {env}"
            table.add("password_env", f"{shown} is not set")
            return None

        def parse(text: str) -> Secret:
            return Secret(_checked_password(text.encode("utf-8", "surrogatepass"), f"environment variable {env}"))

        return attempt(parse, value, table.where("password_env"), self.problems, table.entries["password_env"])

    def _token(self, entry: _Table) -> tuple[Path | None, str | None, Secret | None]:
        file, env = entry.text("token_file"), entry.text("token_env")
        if "token_file" in entry.entries and "token_env" in entry.entries:
            entry.add("token_env", "give token_file or token_env, not both")
            return None, None, None
        if file is not None:
            where = entry.where("token_file")
            return self._token_path(file, self.base, where, entry.entries["token_file"]), None, None
        if env is None:
            return None, None, None
        if not _VARIABLE.fullmatch(env):
            # Rather the token itself, put where the variable's name belongs: it is not repeated.
            entry.add("token_env", "is not the name of an environment variable")
            return None, None, None
        self.token_envs.add(env)
        value = self.environ.get(env)
        if value is None:
            shown = "its environment variable" if _like_token(env) else f"environment variable {env}"
            entry.add("token_env", f"{shown} is not set")
            return None, None, None
        return None, env, self._token_variable(env, value, entry.where("token_env"), entry.entries["token_env"])

    def _db_ids(self, entry: _Table) -> tuple[str, ...] | None:
        nodes = entry.items("db_ids", "[main]")
        if nodes is None:
            return None
        if not nodes:
            entry.add("db_ids", "is empty; remove it to read all databases")
        ids: list[str] = []
        for i, node in enumerate(nodes):
            where = f"{entry.where('db_ids')}[{i}]"
            text = scalar(node, where, self.problems)
            value = None if text is None else attempt(_db_id, text, where, self.problems, node)
            if value in ids:
                self.problems.add(where, f"{quoted(str(value))} is given twice", node)
            elif value is not None:
                ids.append(value)
        return tuple(ids)

    def _tls(self, entry: _Table, url: str | None) -> Tls | None:
        table = entry.mapping("tls", _TLS)
        if table is None:
            return None
        if url is not None and url.startswith("http://"):
            entry.add("tls", "makes no sense with an http:// url")
        for key, partner in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if key in table.entries and partner not in table.entries:
                table.add(key, f"needs {partner} too")
        files = {key: self._pem(table, key) for key in ("ca_file", "cert_file", "key_file")}
        tls = Tls(server_name=table.parsed("server_name", _host), **files)
        _loads(table, "ca_file", Tls(tls.ca_file), "holds no certificate in PEM form")
        if tls.cert_file is not None and tls.key_file is not None:
            pair = Tls(None, tls.cert_file, tls.key_file)
            _loads(table, "cert_file", pair, "together with key_file it is no PEM certificate with its unencrypted key")
        return tls

    def _pem(self, table: _Table, key: str) -> Path | None:
        path = table.parsed(key, _file_path(self.base))
        if path is None:
            return None
        try:
            _head(path, 1)
        except (OSError, ValueError) as error:
            table.add(key, f"cannot read {_path_shown(path)}: {_reason(error)}")
            return None
        return path


def _loads(table: _Table, key: str, tls: Tls, message: str) -> None:
    if tls.ca_file is None and tls.cert_file is None:
        return
    try:
        tls.context()
    except (OSError, ValueError):
        table.add(key, message)


def _share(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    return one is None or other is None or not set(one).isdisjoint(other)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder is gone
        return Path(os.sep)
