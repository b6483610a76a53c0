"""File, environment and flags become one frozen `Config`; every mistake is reported at once, and no secret ever shows.

Flags win over the environment, the environment over the file, the file over the defaults. The file is read as YAML
nodes, never as YAML values: so each mistake has its line, `off` stays `off`, and `1:30` is no number of minutes.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from exporter import REVISION_VARIABLE
from exporter.config.access import Access
from exporter.config.budgets import Budgets
from exporter.config.dimensions import read_dimensions, untold
from exporter.config.discovery import read_discovery
from exporter.config.files import content, parse_path
from exporter.config.instances import Instances, read_instances
from exporter.config.labels import read_labels, uneven
from exporter.config.push import read_push
from exporter.config.reconcile import Checks
from exporter.config.secrets import secret_path, secret_variable
from exporter.config.settings import (
    DEFAULT_STATE,
    ENV_PREFIX,
    FLAGS,
    LOG_FORMATS,
    LOG_LEVELS,
    VARIABLES,
    AgentOS,
    Config,
    SharedState,
    Web,
)
from exporter.config.shard import Shard
from exporter.config.state import parse_state, read_state
from exporter.config.values import (
    DAY,
    choice,
    default_name,
    format_duration,
    integer,
    parse_addresses,
    parse_external,
    parse_route,
    parse_switch,
    parse_url,
    within,
)
from exporter.config.web import load_web
from exporter.core.document import Problems, RefusedError, Table, attempt, compose, is_null, kind, shown
from exporter.core.errors import ConfigError
from exporter.counting.users import UserLabels
from exporter.metrics.series import Limits
from exporter.pricing import pricefile

_DEPTH: Final = 16


def load(flags: Mapping[str, object], environ: Mapping[str, str], *, check_prices: bool = True) -> Config:
    """The configuration that flags, environment and file ask for.

    Files that it names are read, too: tokens, certificates and the price file.

    Args:
        flags: Values by the keys of `FLAGS`; None stands for not given, other keys are passed over.
        environ: Environment variables; an empty one counts as not given.
        check_prices: Whether the price file is read.

    Raises:
        ConfigError: It has every problem found. Nothing else is raised, whatever the input.

    """
    return _Loader(flags, environ, check_prices=check_prices).load()


def _compose(path: Path, where: str) -> yaml.MappingNode | None:
    """The top mapping of a file, None if the file is empty. Raises ConfigError."""
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


_DURATIONS: Final = {
    "poll_interval": (1.0, 3600.0),
    "poll_deadline": (1.0, 600.0),
    "sessions_interval": (1.0, DAY),
    "operations_interval": (5.0, DAY),
    "overlap": (1.0, 3600.0),
    "trace_horizon": (1.0, DAY),  # span ids are kept for a day: beyond, an open trace could not come back
    "initial_lookback": (0.0, 7 * DAY),
    "zero_hold": (0.0, 600.0),
    "stall_budget": (0.001, 10.0),
}
"""Lowest and highest value, in seconds."""

_NOT_SHORTER: Final = (
    ("overlap", "poll_interval", "it must outlast a poll, clock skew and commit lag"),
    ("sessions_interval", "poll_interval", "sessions are not asked for more often than traces"),
)

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
    "agentos_file_sd",
    "agentos_http_sd",
    "push",
    "reconcile",
)
_MOST_SHARDS: Final = 1000
_HINTS: Final = {
    "token": "a token does not belong into this file: use token_file or token_env",
    "password": "a password does not belong into this file",
    "listen_address": "use the flag --web.listen-address",
    "log_level": "use the flag --log.level",
    "log_format": "use the flag --log.format",
    "insecure_skip_verify": "name the authority in ca_file instead",
}


class _Loader:
    """One call of `load`: the problems and warnings that gather on the way."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str], *, check_prices: bool) -> None:
        """Begin without any value.

        Args:
            flags: Values of the flags, by name.
            environ: The environment variables.
            check_prices: Whether the price file is read as well.

        """
        self.flags, self.environ = flags, environ
        self.check_prices = check_prices
        self.problems = Problems()
        self.warnings: list[str] = []
        self.instances = Instances()
        self.budgets: Budgets | None = None
        self.checks: Checks | None = None
        self.file, self.table = self._read_file()
        self.access = Access(Path() if self.file is None else self.file.parent, environ, self.problems)

    def load(self) -> Config:
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

    def _check_named(self, values: Mapping[str, Any]) -> None:
        """Refuse budgets and checks that name instances or dimensions which do not exist."""
        if self.budgets is None or self.checks is None:
            return
        self.budgets.check_dimensions([dimension.name for dimension in values["dimensions"]])
        if values["discovery"]:
            return  # the names in a list are not known yet
        names = {agentos.name for agentos in values.get("agentos", ())}
        if names <= self.instances.names.keys():  # the list of the file, not --agentos.url
            names = set(self.instances.names)
        self.budgets.check_instances(names)
        self.checks.check_instances(names)

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
        flag = self._given(spelling)
        if flag is None:
            return
        try:
            values[key] = parse(flag[0])
        except RefusedError as error:
            self.problems.add(flag[1], str(error))

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
                if self.environ.get(name) and name not in self.access.secret_variables:
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
        flag = self._given("--web.config.file")
        if flag is not None and "config_file" in values:
            try:
                load_web(values["config_file"])
            except ConfigError as error:
                for problem in error.problems:
                    self.problems.add(flag[1], problem)
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
        proxy = self.access.environment_proxy(url)
        return (AgentOS(default_name(url), url, secret, path, env if secret else None, proxy=proxy),)

    def _unknown_variables(self) -> None:
        variables = {REVISION_VARIABLE, *(flag.env for flag in FLAGS), *(name for name, _ in VARIABLES)}
        variables |= self.access.secret_variables
        for name in sorted(self.environ):
            # Kubernetes sets such variables in every pod beside a Service called agentos-exporter.
            foreign = re.match(rf"{ENV_PREFIX}(?:SERVICE|PORT)(?:_|$)", name)
            if name.startswith(ENV_PREFIX) and name not in variables and not foreign:
                options = [each.removeprefix(ENV_PREFIX) for each in sorted(variables)]
                close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), options, n=1, cutoff=0.7)
                hint = f"; did you mean {ENV_PREFIX}{close[0]}?" if close else ""
                self.warnings.append(f"{shown(name)}: not a setting of agentos-exporter{hint}")

    # The file

    def _read_file(self) -> tuple[Path | None, _Table | None]:
        """The path of --config.file, and the content of the file. Raises ConfigError if it cannot be read."""
        flag = self._given("--config.file")
        path = None if flag is None else attempt(parse_path(_here()), flag[0], flag[1], self.problems)
        if flag is None or path is None:
            return None, None
        top = _compose(path, flag[1])
        return path, None if top is None else _Table(top, "", _TOP, self.problems)

    def _from_file(self, table: _Table) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, bounds in _DURATIONS.items():
            seconds = table.parsed(key, within(*bounds))
            if seconds is not None:
                values[key] = seconds
        self._relations(table, values)
        state = read_state(table, self.access)
        if state is not None:
            values["state"] = state[0]
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
        prices = table.parsed("prices", parse_path(self.access.base))
        if prices is not None:
            values["prices"] = prices
            if self.check_prices:
                self._check_prices(table, prices)
        update = table.parsed("prices_update", parse_switch)
        if update is not None:
            values["prices_update"] = update
        self.instances = read_instances(table, self.access)
        self.warnings += self.instances.warnings
        if self.instances.read is not None:
            values["agentos"] = self.instances.read
        values["discovery"] = read_discovery(table, self.access)
        self.budgets = Budgets(table)
        values["budgets"] = self.budgets.read
        values["dimensions"] = read_dimensions(table, self.access.base)
        self.checks = Checks(table, self.access.base)
        values["reconcile"] = self.checks.read
        values["push"] = read_push(table, self.access)
        return values

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
        """Some times must not be shorter than others. Only given and valid values are compared."""
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


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder is gone
        return Path(os.sep)
