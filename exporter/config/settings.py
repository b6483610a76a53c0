"""The settings: the flags, and the configuration of the daemon as frozen classes."""

from __future__ import annotations

import enum
import re
import ssl
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, NamedTuple

from exporter.config.secrets import Noun, Secret, read_secret
from exporter.config.shard import Shard
from exporter.core.document import RefusedError
from exporter.core.errors import ConfigError
from exporter.counting.budgets import Budget
from exporter.counting.dimensions import Dimension
from exporter.counting.users import UserLabels
from exporter.metrics.series import Dropped, Limits
from exporter.sources.database import location

DEFAULT_LEASE: Final = 15.0
DEFAULT_STATE: Final = Path("/var/lib/agentos-exporter/state.db")
DEFAULT_PORT: Final = 9777
ENV_PREFIX: Final = "AGENTOS_EXPORTER_"
LOG_LEVELS: Final = ("debug", "info", "warn", "error")
LOG_FORMATS: Final = ("logfmt", "json")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of `run`. `default` is shown in the help; a flag that is not given is None in the `flags` of `load`.

    A flag without a `metavar` takes no value.
    """

    spelling: str
    key: str
    env: str
    help: str
    default: str | None = None
    metavar: str | None = None


def _flag(spelling: str, metavar: str | None, text: str, default: str | None = None, *, key: str | None = None) -> Flag:
    name = re.sub(r"[.-]", "_", spelling.removeprefix("--"))
    return Flag(spelling, key or name, ENV_PREFIX + name.upper(), text, default, metavar)


FLAGS: Final = (
    _flag("--config.file", "FILE", "YAML file with the whole configuration"),
    _flag("--agentos.url", "URL", "the one AgentOS to read; takes the place of the list in the file"),
    _flag(
        "--state",
        "PATH",
        "state file, PostgreSQL URL, or memory: counters restart at 0 then",
        str(DEFAULT_STATE),
    ),
    _flag(
        "--web.listen-address",
        "ADDRESS",
        "host and port to serve on, or unix:PATH; may be repeated",
        f":{DEFAULT_PORT}",
        key="listen_address",
    ),
    _flag("--web.systemd-socket", None, "serve on the sockets that systemd hands over"),
    _flag("--web.config.file", "FILE", "TLS, basic auth, headers and rate limit, in exporter-toolkit's format"),
    _flag("--web.telemetry-path", "PATH", "where the metrics lie", "/metrics"),
    _flag("--web.external-url", "URL", "URL or path under which browsers reach this server, behind a proxy"),
    _flag("--web.route-prefix", "PATH", "what stands before all routes; default: the path of --web.external-url"),
    _flag("--web.enable-lifecycle", None, "POST /-/reload reads the configuration anew"),
    _flag("--shard.index", "NUMBER", "which of the shards this daemon is, from 0", "0"),
    _flag("--shard.count", "NUMBER", "daemons that divide the AgentOS instances by their names", "1"),
    _flag("--log.level", "LEVEL", f"one of {', '.join(LOG_LEVELS)}", "info"),
    _flag("--log.format", "FORMAT", "logfmt or json; default: logfmt, on a terminal colours"),
)
"""Every flag that configures the daemon, its key in the `flags` of `load`, and its environment variable."""

VARIABLES: Final = (
    (f"{ENV_PREFIX}TOKEN", "token for the AgentOS of --agentos.url"),
    (f"{ENV_PREFIX}TOKEN_FILE", "file that holds the token for the AgentOS of --agentos.url, read again at each poll"),
)
"""Environment variables without a flag (a token on a command line would show in `ps`): (name, help)."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How an AgentOS proves itself (`ca_file`, `server_name`), and we to it (`cert_file`, `key_file`). PEM files."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """A client context with the present content of these files; without `ca_file` it trusts the system's CAs.

        Raises OSError (ssl.SSLError is one) if a file cannot be read or has the wrong content.
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

    def __str__(self) -> str:
        return f"{self.location}, schema {self.location.schema}" if self.location.schema else str(self.location)

    def read_password(self) -> str | None:
        """The password of this moment; None where none is configured. Raises ConfigError that names the file."""
        if self.password_file is None:
            return None if self.password is None else self.password.reveal()
        try:
            return read_secret(self.password_file, "password")
        except RefusedError as error:
            raise ConfigError([f"{self.location}: password_file: {error}"]) from None


@dataclass(frozen=True, slots=True)
class SharedState(Database):
    """A PostgreSQL database that holds the state, in the schema of its location.

    `lease` is in seconds: another daemon may take over when a daemon has given no sign of life for so long.
    """

    lease: float = DEFAULT_LEASE


@dataclass(frozen=True, slots=True)
class AgentOS:
    """One AgentOS instance, read through its API (`url`) or from its `databases`.

    `name` is the value of the label `agentos`; `url` has no trailing slash, and is empty if there are databases.
    `token` is the value of `token_env` at the start; a `token_file` is read again at each `read_token`. `db_ids` is
    None if all databases are read. `enrich_runs` reads the detail of each run: cache and reasoning tokens, time to
    first token. `proxy` is the URL of the proxy on the way to `url`, None for none: that of `proxy_url`, else that of
    the proxy variables of the environment.
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
    discovered: bool = False
    """whether a list names it, rather than the configuration itself"""

    @property
    def where(self) -> str:
        """Its address, for people: its URL, or its databases without users and passwords."""
        return self.url or ", ".join(str(database.location) for database in self.databases)

    def read_token(self) -> str | None:
        """The bearer token of this moment, printable ASCII; None where none is configured.

        Raises ConfigError that names the file and the cure.
        """
        if self.token_file is None:
            return None if self.token is None else self.token.reveal()
        try:
            return read_secret(self.token_file, "token")
        except RefusedError as error:
            raise ConfigError([f"agentos {self.name}: token_file: {error}"]) from None


@dataclass(frozen=True, slots=True)
class Discovery:
    """One list of instances.

    Attributes:
        mechanism: `file` or `http`.
        where: Patterns of absolute paths, or the one URL.
        refresh: Seconds after which it is read again in any case.
        template: What all its instances have in common; its name and URL are empty.
        name_label: The label that has an instance's name; where it is absent, host and port are the name.
        token_file: Holds the bearer token of the endpoint.

    """

    mechanism: str
    where: tuple[str, ...]
    refresh: float
    template: AgentOS
    name_label: str = "agentos"
    token_file: Path | None = None

    def __str__(self) -> str:
        return f"agentos_{self.mechanism}_sd {', '.join(self.where)}"


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or password: `value` is that of the environment variable at the start; a `file` is read again."""

    noun: Noun
    value: Secret | None = None
    file: Path | None = None
    variable: str | None = None

    def read(self) -> str | None:
        """The present token or password; None if none is configured. Raises RefusedError that names the file."""
        if self.file is not None:
            return read_secret(self.file, self.noun)
        return None if self.value is None else self.value.reveal()


class Protocol(enum.StrEnum):
    """The protocol of a target of `push`."""

    OTLP = "otlp"
    REMOTE_WRITE = "remote_write"


@dataclass(frozen=True, slots=True)
class Push:
    """One target that metrics are sent to.

    Attributes:
        name: The value of the label `target`; host and port of the URL unless the configuration gives one.
        url: The whole URL.
        protocol: How it is spoken to.
        interval: Seconds between two pushes.
        timeout: Seconds that the target has for an answer.
        headers: Further headers.
        username: Of basic authentication, with `password`.
        token: A bearer token.
        labels: For remote write labels of each series, for OTLP attributes of the resource.
        proxy: The URL of the proxy that leads there; None for none.

    """

    name: str
    url: str
    protocol: Protocol
    interval: float = 30.0
    timeout: float = 10.0
    headers: tuple[tuple[str, Secret], ...] = ()
    username: str | None = None
    password: Credential = Credential("password")
    token: Credential = Credential("token")
    tls: Tls | None = None
    labels: tuple[tuple[str, str], ...] = ()
    proxy: Secret | None = None


class Check(NamedTuple):
    """A bill that is compared with our own cost once a day.

    Attributes:
        vendor: Whose bill it is.
        usage: The path of its export, absolute; it may have `*` in its last part.
        agentos: The AgentOS whose calls it has; '' for all of them together.
        days: How many days before today are compared.

    """

    vendor: str
    usage: str
    agentos: str = ""
    days: int = 7


class Address(NamedTuple):
    """A listen address; an empty host means all interfaces, port 0 any free one; `path` is that of a socket."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Web:
    """How the web server is reached.

    Attributes:
        addresses: Where it listens, unless systemd hands over sockets.
        config_file: TLS, passwords, headers and rate limit; see `exporter.config.web`.
        systemd_socket: Whether it serves on the sockets that systemd hands over.
        telemetry_path: Where the metrics lie, below `route_prefix`.
        route_prefix: What stands before all routes; no slash at its end.
        external_path: The same as browsers see it, behind a proxy that changes it.
        lifecycle: Whether `POST /-/reload` reads the configuration anew.

    """

    addresses: tuple[Address, ...] = (Address(),)
    config_file: Path | None = None
    systemd_socket: bool = False
    telemetry_path: str = "/metrics"
    route_prefix: str = ""
    external_path: str = ""
    lifecycle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration of the daemon. Times are in seconds; `state` None: memory; `log_format` None: automatic."""

    agentos: tuple[AgentOS, ...]
    discovery: tuple[Discovery, ...] = ()
    poll_interval: float = 15.0
    poll_deadline: float = 60.0
    sessions_interval: float = 60.0
    operations_interval: float = 60.0
    overlap: float = 60.0
    trace_horizon: float = 3600.0
    initial_lookback: float = 3600.0
    zero_hold: float = 60.0
    stall_budget: float = 0.05
    state: Path | SharedState | None = DEFAULT_STATE
    shard: Shard = field(default_factory=Shard)
    limits: Limits = field(default_factory=Limits)
    user_labels: UserLabels = UserLabels.OFF
    dropped_labels: Dropped = field(default_factory=dict)
    prices: Path | None = None
    prices_update: bool = False
    budgets: tuple[Budget, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    push: tuple[Push, ...] = ()
    reconcile: tuple[Check, ...] = ()
    web: Web = field(default_factory=Web)
    log_level: str = "info"
    log_format: str | None = None
    config_file: Path | None = None
    warnings: tuple[str, ...] = ()
    """what is odd but allowed, one line each, to be logged at start"""

    @property
    def own(self) -> tuple[AgentOS, ...]:
        """The instances of this daemon's shard."""
        return tuple(agentos for agentos in self.agentos if self.shard.has(agentos.name))


_SPELLED: Final = {"user_labels": "labels.user", "dropped_labels": "labels.drop"}


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Keys of the file (and flags) that differ between two configurations, as they are spelled there."""
    kept = {"config_file", "warnings"}
    names = (setting.name for setting in fields(Config) if setting.name not in kept)
    return tuple(_SPELLED.get(name, name) for name in names if getattr(old, name) != getattr(new, name))
