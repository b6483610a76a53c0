"""File, environment and flags become one frozen `Config`; every mistake is reported at once, and no secret ever shows.

Flags win over the environment, the environment over the file, the file over the defaults. The file is read as YAML
nodes, never as YAML values: so each mistake has its line, `off` stays `off`, and `1:30` is no number of minutes.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import yaml

from exporter import REVISION_VARIABLE
from exporter.config.dimensions import read_dimensions, untold
from exporter.config.files import content, head, parse_path, path_shown, reason
from exporter.config.labels import read_labels, uneven
from exporter.config.push import read_push
from exporter.config.reconcile import read_reconcile
from exporter.config.secrets import Found, Noun, Secret, like_secret, secret_path, secret_variable
from exporter.config.settings import (
    DEFAULT_LEASE,
    DEFAULT_STATE,
    ENV_PREFIX,
    FLAGS,
    LOG_FORMATS,
    LOG_LEVELS,
    VARIABLES,
    AgentOS,
    Config,
    Database,
    Discovery,
    SharedState,
    Tls,
    Web,
)
from exporter.config.shard import Shard
from exporter.config.values import (
    NAME,
    choice,
    default_name,
    format_duration,
    integer,
    parse_addresses,
    parse_db_id,
    parse_external,
    parse_filter,
    parse_host,
    parse_identifier,
    parse_label,
    parse_list_url,
    parse_name,
    parse_pattern,
    parse_route,
    parse_switch,
    parse_time_zone,
    parse_url,
    parse_usd,
    parse_user,
    state_path,
    within,
)
from exporter.config.web import load_web
from exporter.core.document import Problems, RefusedError, Table, attempt, compose, is_null, kind, quoted, scalar, shown
from exporter.core.errors import ConfigError
from exporter.counting.budgets import Budget, Period
from exporter.counting.users import UserLabels
from exporter.metrics.totals import Limits
from exporter.pricing import pricefile
from exporter.sources.api import proxies
from exporter.sources.database import location

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def load(flags: Mapping[str, object], environ: Mapping[str, str], *, check_prices: bool = True) -> Config:
    """The configuration that flags, environment and file ask for.

    `flags` has the keys of `FLAGS`; None stands for not given, other keys are passed over. An empty environment
    variable counts as not given. Files that it names are read: the configuration, tokens, certificates, and the price
    file unless `check_prices` is False. Raises ConfigError with every problem found; nothing else, whatever the input.
    """
    return _Loader(flags, environ, check_prices=check_prices).load()


_DEPTH: Final = 16


def _compose(path: Path, where: str) -> yaml.MappingNode | None:
    """The top mapping of a file, None if the file says nothing. Raises ConfigError."""
    try:
        raw = content(path)
    except RefusedError as error:
        raise ConfigError([f"{where}: {error}"]) from None
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
_FILE_REFRESH: Final = 300.0
_HTTP_REFRESH: Final = 60.0
"""Prometheus's own defaults."""
_DURATIONS: Final = {
    "poll_interval": (1.0, 3600.0),
    "poll_deadline": (1.0, 600.0),
    "sessions_interval": (1.0, _DAY),
    "operations_interval": (5.0, _DAY),
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

_LISTS: Final = ("agentos_file_sd", "agentos_http_sd")
_TOP: Final = (
    *_DURATIONS,
    "state",
    "agentos",
    "labels",
    "limits",
    "prices",
    "prices_update",
    "budgets",
    "dimensions",
    *_LISTS,
    "push",
    "reconcile",
)
_API_KEYS: Final = ("token_file", "token_env", "db_ids", "tls", "proxy_url")
_TABLES: Final = tuple(one.name for one in fields(location.Tables))
_DATABASE_KEYS: Final = ("schema", "password_file", "password_env", *_TABLES)
_FILE_SD: Final = ("files", "refresh_interval", "name_label", *_API_KEYS, "enrich_runs")
_HTTP_SD: Final = ("url", "refresh_interval", "name_label", "endpoint_token_file", *_API_KEYS, "enrich_runs")
_INSTANCE: Final = ("name", "url", *_API_KEYS, "enrich_runs", "database", *_DATABASE_KEYS)
_DATABASE: Final = ("url", *_DATABASE_KEYS)
_STATE: Final = ("url", "schema", "lease", "password_file", "password_env")
_MOST_SHARDS: Final = 1000
_STATE_SCHEMA: Final = "agentos_exporter"
_POSTGRES_URL: Final = re.compile(r"postgres(ql)?(\+\w+)?://", re.IGNORECASE)
_BUDGET: Final = ("name", "agentos", "root", "agent", "model", "user", "per", "period", "time_zone", "limit_usd")
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
        self.secret_variables: set[str] = set()
        self.base = Path()
        self.file: Path | None = None
        self.names: dict[str, int] = {}
        """names in the list of AgentOS instances, those of refused ones too → place"""
        self.naming: list[Table] = []
        """entries that may name an AgentOS or a dimension: budgets and checks"""

    def load(self) -> Config:
        self._read_file()
        values: dict[str, Any] = {}
        if self.table is not None:
            values = self._from_file(self.table)
        values.update(self._from_flags())
        state, shard = values.get("state"), values["shard"]
        if isinstance(state, SharedState) and shard.count > 1:
            # One configuration may serve all shards, and each has a state of its own.
            place = replace(state.location, schema=f"{state.location.schema}_{shard.index}")
            values["state"] = replace(state, location=place)
        self._check_named(values)
        if shard.count > 1 and any(not check.agentos for check in values.get("reconcile", ())):
            self.problems.add("reconcile", "each entry must name its agentos: a shard knows its own instances alone")
        self._warn_of_memory(values)
        self.warnings += untold(values.get("dimensions", ()), values.get("agentos", ()))
        self._unknown_variables()
        if values.get("discovery"):
            values.setdefault("agentos", ())
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
        if values.get("reconcile"):
            self.warnings.append("reconcile: with state: memory there are no daily sums, so nothing is compared")

    # Flags and environment

    def _given(self, spelling: str) -> tuple[str, str] | None:
        """Text of a flag or its variable, and which of the two it was."""
        flag = next(flag for flag in FLAGS if flag.spelling == spelling)
        value = self.flags.get(flag.key)
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value is not None:
            if value is True and flag.metavar is None:
                return "true", flag.spelling
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
        self._flag_value(values, "--state", "state", parse_state(_here()))
        values["web"] = self._web()
        values["shard"] = self._shard()
        self._flag_value(values, "--log.level", "log_level", choice(*LOG_LEVELS))
        self._flag_value(values, "--log.format", "log_format", choice(*LOG_FORMATS))
        url = self._given("--agentos.url")
        if url is not None:
            values["agentos"] = self._single(*url)
        else:
            for name, _ in VARIABLES:
                if self.environ.get(name) and name not in self.secret_variables:
                    self.warnings.append(
                        f"{name}: not used without --agentos.url; in the file it is token_env or token_file"
                    )
        return values

    def _shard(self) -> Shard:
        values: dict[str, Any] = {}
        self._flag_value(values, "--shard.index", "index", integer(0, _MOST_SHARDS - 1))
        self._flag_value(values, "--shard.count", "count", integer(1, _MOST_SHARDS))
        shard = Shard(**values)
        if shard.index >= shard.count:
            self.problems.add("--shard.index", f"must be below --shard.count, which is {shard.count}")
        return shard

    def _web(self) -> Web:
        """How the web server is reached; the file of --web.config.file is read, too."""
        values: dict[str, Any] = {}
        self._flag_value(values, "--web.listen-address", "addresses", parse_addresses)
        self._flag_value(values, "--web.systemd-socket", "systemd_socket", parse_switch)
        self._flag_value(values, "--web.telemetry-path", "telemetry_path", lambda text: parse_route(text) or "/")
        self._flag_value(values, "--web.external-url", "external_path", parse_external)
        values["route_prefix"] = values.get("external_path", "")
        self._flag_value(values, "--web.route-prefix", "route_prefix", parse_route)
        self._flag_value(values, "--web.enable-lifecycle", "lifecycle", parse_switch)
        self._flag_value(values, "--web.config.file", "config_file", parse_path(_here()))
        given = self._given("--web.config.file")
        if given is not None and "config_file" in values:
            try:
                load_web(values["config_file"])
            except ConfigError as error:
                for problem in error.problems:
                    self.problems.add(given[1], problem)
        return Web(**values)

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
            secret = attempt(secret_variable(env, "token"), token, env, self.problems)
        elif file:
            path = attempt(secret_path(_here(), "token"), file, file_env, self.problems)
        if url is None:
            return ()
        proxy = self._environment_proxy(url)
        return (AgentOS(default_name(url), url, secret, path, env if secret else None, proxy=proxy),)

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
        known = (
            {REVISION_VARIABLE} | {flag.env for flag in FLAGS} | {name for name, _ in VARIABLES} | self.secret_variables
        )
        for name in sorted(self.environ):
            # Kubernetes sets such variables in every pod beside a Service called agentos-exporter.
            foreign = re.match(rf"{ENV_PREFIX}(?:SERVICE|PORT)(?:_|$)", name)
            if name.startswith(ENV_PREFIX) and name not in known and not foreign:
                ours = [each.removeprefix(ENV_PREFIX) for each in sorted(known)]
                close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), ours, n=1, cutoff=0.7)
                hint = f"; did you mean {ENV_PREFIX}{close[0]}?" if close else ""
                self.warnings.append(f"{shown(name)}: not a setting of agentos-exporter{hint}")

    # The file

    def _read_file(self) -> None:
        given = self._given("--config.file")
        if given is None:
            return
        path = attempt(parse_path(_here()), given[0], given[1], self.problems)
        if path is None:
            return
        self.file, self.base = path, path.parent
        top = _compose(path, given[1])
        if top is not None:
            self.table = _Table(top, "", _TOP, self.problems)

    def _state(self, table: _Table, values: dict[str, Any]) -> None:
        """A path, memory, a URL, or a mapping of a URL and what is beside it."""
        schema, lease = None, DEFAULT_LEASE
        secret: Found = (None, None, None)
        key = "state"
        if isinstance(table.entries.get("state"), yaml.MappingNode):
            inner = table.mapping("state", _STATE)
            if inner is None:
                return
            lease = inner.parsed("lease", within(1.0, 600.0)) or lease
            schema, secret = inner.parsed("schema", parse_identifier), self._secret(inner, "password")
            if "url" not in inner.entries:
                inner.add("url", "is missing; it is the URL of a PostgreSQL database")
                return
            table, key = inner, "url"
            if not _POSTGRES_URL.match(inner.text("url") or "postgresql://"):
                inner.add("url", "must be the URL of a PostgreSQL database")
                return
        # None says memory here, so what was refused has to be told apart.
        found = table.parsed(key, lambda text: (parse_state(self.base, schema, secret, lease)(text),))
        if found is not None:
            values["state"] = found[0]

    def _from_file(self, table: _Table) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, bounds in _DURATIONS.items():
            seconds = table.parsed(key, within(*bounds))
            if seconds is not None:
                values[key] = seconds
        self._relations(table, values)
        self._state(table, values)
        limits = table.mapping("limits", ("series_per_metric", "values_per_label", "label_value_length"))
        if limits is not None:
            default = Limits()
            values["limits"] = Limits(
                limits.parsed("series_per_metric", integer(1, 1_000_000)) or default.series_per_metric,
                limits.parsed("values_per_label", integer(1, 100_000)) or default.values_per_label,
                limits.parsed("label_value_length", integer(32, 1024)) or default.label_value_length,
            )
        values.update(read_labels(table))
        self.warnings += uneven(values.get("dropped_labels", {}))
        prices = table.parsed("prices", parse_path(self.base))
        if prices is not None:
            values["prices"] = prices
            if self.check_prices:
                self._check_prices(table, prices)
        update = table.parsed("prices_update", parse_switch)
        if update is not None:
            values["prices_update"] = update
        instances = self._instances(table)
        if instances is not None:
            values["agentos"] = instances
        values["discovery"] = self._discovery(table)
        values["budgets"] = self._budgets(table)
        values["dimensions"] = read_dimensions(table, self.base)
        values["reconcile"] = read_reconcile(table, self.base, self.naming.append)
        values["push"] = read_push(table, secret=self._secret, tls=self._tls, proxy=self._environment_proxy)
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
            self.naming.append(entry)
            budget = self._budget(entry)
            name = entry.entries.get("name")
            if isinstance(name, yaml.ScalarNode) and NAME.fullmatch(name.value):
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
        name, limit = entry.parsed("name", parse_name), entry.parsed("limit_usd", parse_usd)
        period = entry.parsed("period", choice(*Period))
        time_zone = entry.parsed("time_zone", parse_time_zone)
        filters = {key: entry.parsed(key, parse_filter) or "" for key in ("agentos", "root", "agent", "model")}
        user = entry.parsed("user", parse_user) or ""
        per = entry.text("per") or ""
        if per and user:
            entry.add("user", "makes no sense with per: each value has a budget of its own")
        if name is None or limit is None or period is None:
            return None
        whose = {"user": user, "per": per, **filters}
        return Budget(name=name, period=Period(period), limit=limit, time_zone=time_zone or "UTC", **whose)

    def _check_named(self, values: Mapping[str, Any]) -> None:
        """What is for a dimension that is none, or for an AgentOS that nobody reads, would never see any spending."""
        dimensions = [one.name for one in values.get("dimensions", ())]
        for entry in self.naming:
            node = entry.entries.get("per")
            if isinstance(node, yaml.ScalarNode) and node.value and node.value not in dimensions:
                known = f"known are {', '.join(dimensions)}" if dimensions else "name it under dimensions"
                entry.add("per", f"{quoted(node.value)} is no dimension; {known}")
        if values.get("discovery"):
            return  # what a list will name is not known yet
        listed: tuple[AgentOS, ...] = values.get("agentos", ())
        names = {one.name for one in listed}
        if names <= self.names.keys():  # the list of the file, not --agentos.url
            names = set(self.names)
        for entry in self.naming:
            node = entry.entries.get("agentos")
            if names and isinstance(node, yaml.ScalarNode) and node.value and not is_null(node):
                self._check_agentos(entry, node.value, sorted(names))

    @staticmethod
    def _check_agentos(entry: Table, name: str, names: list[str]) -> None:
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

    def _discovery(self, table: _Table) -> tuple[Discovery, ...]:
        """The lists of instances."""
        found: list[Discovery] = []
        for key, known, example in (
            ("agentos_file_sd", _FILE_SD, "[{files: [targets/*.yml]}]"),
            ("agentos_http_sd", _HTTP_SD, "[{url: https://example.com/targets}]"),
        ):
            for i, node in enumerate(table.items(key, example) or ()):
                path = f"{key}[{i}]"
                if not isinstance(node, yaml.MappingNode):
                    self.problems.add(path, f"must be a mapping of {', '.join(known)}, not {kind(node)}", node)
                    continue
                entry = _Table(node, path, known, self.problems)
                where = self._files(entry) if key == "agentos_file_sd" else self._endpoint(entry)
                discovery = self._list(entry, key.split("_")[1], where)
                if where:
                    found.append(discovery)
        return tuple(found)

    def _list(self, entry: _Table, mechanism: str, where: tuple[str, ...]) -> Discovery:
        token_file, token_env, secret = self._secret(entry, "token")
        template = AgentOS(
            "",
            "",
            secret,
            token_file,
            token_env,
            self._db_ids(entry),
            self._tls(entry, None),
            entry.parsed("enrich_runs", parse_switch) or False,
            proxy=self._proxy(entry, None),
        )
        default = _FILE_REFRESH if mechanism == "file" else _HTTP_REFRESH
        refresh = entry.parsed("refresh_interval", within(1.0, _DAY)) or default
        label = entry.parsed("name_label", parse_label) or "agentos"
        endpoint_token = entry.parsed("endpoint_token_file", secret_path(self.base, "token"))
        return Discovery(mechanism, where, refresh, template, label, endpoint_token)

    def _files(self, entry: _Table) -> tuple[str, ...]:
        """Patterns of files, absolute."""
        if "files" not in entry.entries:
            entry.add("files", "is missing; it is a list of paths, which may have * in their last part")
        found: list[str] = []
        for i, node in enumerate(entry.items("files", "[targets/*.yml]") or ()):
            where = f"{entry.where('files')}[{i}]"
            text = scalar(node, where, self.problems)
            pattern = None if text is None else attempt(parse_pattern(self.base), text, where, self.problems, node)
            if pattern is not None:
                found.append(pattern)
        return tuple(found)

    @staticmethod
    def _endpoint(entry: _Table) -> tuple[str, ...]:
        if "url" not in entry.entries:
            entry.add("url", "is missing; it is where the list is")
        url = entry.parsed("url", parse_list_url)
        return () if url is None else (url,)

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
            if name is not None and isinstance(name, yaml.ScalarNode) and NAME.fullmatch(name.value):
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
        name = entry.parsed("name", parse_name)
        if "name" not in entry.entries:
            entry.add("name", "is missing; it becomes the value of the label agentos")
        url = entry.parsed("url", parse_url)
        enrich_runs = entry.parsed("enrich_runs", parse_switch) or False
        database = entry.entries.get("database")
        if database is not None and is_null(database):
            database = None
        if "url" in entry.entries and database is not None:
            entry.add("database", "give url or database, not both")
        elif "url" not in entry.entries and database is None:
            entry.add("url", "is missing; it is the base URL of the AgentOS")
        token_file, token_env, secret = self._secret(entry, "token")
        db_ids = self._db_ids(entry)
        tls = self._tls(entry, url)
        databases = self._databases(entry, database)
        if database is not None:
            self._only_with_url(entry)
            if name is None or not databases:
                return None
            return AgentOS(name, "", enrich_runs=enrich_runs, databases=databases)
        if name is None or url is None:
            return None
        proxy = self._proxy(entry, url)
        return AgentOS(name, url, secret, token_file, token_env, db_ids, tls, enrich_runs, proxy=proxy)

    @staticmethod
    def _only_with_url(entry: _Table) -> None:
        for key in _API_KEYS:
            if key in entry.entries and "url" not in entry.entries:
                entry.add(key, "makes no sense with database: it belongs to url")

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
            place = location.parse(text, self.base, shared.schema, location.Tables.named(shared.tables))
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
        schema = table.parsed("schema", parse_identifier)
        tables = {key: name for key in _TABLES if (name := table.parsed(key, parse_identifier)) is not None}
        path, env, password = self._secret(table, "password")
        if {"password_file", "password_env"}.isdisjoint(table.entries):
            path, env, password = outer.password_file, outer.password_env, outer.password
        return _Shared(schema or outer.schema, path, env, password, {**outer.tables, **tables})

    def _secret(self, table: Table, noun: Noun) -> Found:
        """That of a token or password."""
        of_file, of_variable = f"{noun}_file", f"{noun}_env"
        if of_file in table.entries and of_variable in table.entries:
            table.add(of_variable, f"give {of_file} or {of_variable}, not both")
            return None, None, None
        path = table.parsed(of_file, secret_path(self.base, noun))
        name = table.text(of_variable)
        if name is None:
            return path, None, None
        if not _VARIABLE.fullmatch(name):
            # Rather the secret itself, put where the variable's name belongs: it is not repeated.
            table.add(of_variable, "is not the name of an environment variable")
            return path, None, None
        self.secret_variables.add(name)
        if name not in self.environ:
            known = "its environment variable" if like_secret(name) else f"environment variable {name}"
            table.add(of_variable, f"{known} is not set")
            return path, name, None
        value, where = self.environ[name], table.where(of_variable)
        secret = attempt(secret_variable(name, noun), value, where, self.problems, table.entries[of_variable])
        return path, name, secret

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
            value = None if text is None else attempt(parse_db_id, text, where, self.problems, node)
            if value in ids:
                self.problems.add(where, f"{quoted(str(value))} is given twice", node)
            elif value is not None:
                ids.append(value)
        return tuple(ids)

    def _tls(self, entry: Table, url: str | None) -> Tls | None:
        table = entry.mapping("tls", _TLS)
        if table is None:
            return None
        if url is not None and url.startswith("http://"):
            entry.add("tls", "makes no sense with an http:// url")
        for key, partner in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if key in table.entries and partner not in table.entries:
                table.add(key, f"needs {partner} too")
        files = {key: self._pem(table, key) for key in ("ca_file", "cert_file", "key_file")}
        tls = Tls(server_name=table.parsed("server_name", parse_host), **files)
        _loads(table, "ca_file", Tls(tls.ca_file), "holds no certificate in PEM form")
        if tls.cert_file is not None and tls.key_file is not None:
            pair = Tls(None, tls.cert_file, tls.key_file)
            _loads(table, "cert_file", pair, "together with key_file it is no PEM certificate with its unencrypted key")
        return tls

    def _pem(self, table: Table, key: str) -> Path | None:
        path = table.parsed(key, parse_path(self.base))
        if path is None:
            return None
        try:
            head(path, 1)
        except (OSError, ValueError) as error:
            table.add(key, f"cannot read {path_shown(path)}: {reason(error)}")
            return None
        return path


def _loads(table: Table, key: str, tls: Tls, message: str) -> None:
    if tls.ca_file is None and tls.cert_file is None:
        return
    try:
        tls.context()
    except (OSError, ValueError):
        table.add(key, message)


def _share(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    return one is None or other is None or not set(one).isdisjoint(other)


def parse_state(
    base: Path, schema: str | None = None, secret: Found = (None, None, None), lease: float = DEFAULT_LEASE
) -> Callable[[str], Path | SharedState | None]:
    """A parser of `state`: a path relative to `base`, memory (None), or the URL of a PostgreSQL database."""

    def parse(text: str) -> Path | SharedState | None:
        if not _POSTGRES_URL.match(text):
            return state_path(base)(text)
        try:
            place = location.parse(text, base, schema or _STATE_SCHEMA)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        path, variable, password = secret
        return SharedState(place, password, path, variable, lease)

    return parse


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder is gone
        return Path(os.sep)
