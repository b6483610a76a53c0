"""The meaning of a configuration, for `check-config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.config import AgentOS, Check, Config, Database, Push, Secret, Tls, Web, format_duration
from exporter.core.logs import redact
from exporter.core.text import escaped
from exporter.counting.budgets import Budget
from exporter.counting.dimensions import Dimension
from exporter.pricing import money

if TYPE_CHECKING:
    from pathlib import Path


def describe(config: Config) -> list[str]:
    """The meaning of the configuration, in lines; of tokens only their places."""
    source = str(config.config_file) if config.config_file is not None else "none: flags and environment only"
    durations = (
        *("poll_interval", "poll_deadline", "sessions_interval", "operations_interval"),
        *("overlap", "trace_horizon", "initial_lookback"),
        *("zero_hold", "stall_budget"),
    )
    facts = [
        ("file", source),
        ("state", "memory: counters restart at 0 with the process" if config.state is None else str(config.state)),
        *([("shard", str(config.shard))] if config.shard.count > 1 else ()),
        *_web(config.web),
        ("log", f"{config.log_level}, {config.log_format or 'logfmt, on a terminal colours'}"),
        *((name, format_duration(getattr(config, name))) for name in durations),
        ("series_per_metric", str(config.limits.series_per_metric)),
        ("values_per_label", str(config.limits.values_per_label)),
        ("label_value_length", str(config.limits.label_value_length)),
        ("labels.user", str(config.user_labels)),
        *(("labels.drop", f"{name}: {', '.join(sorted(labels))}") for name, labels in config.dropped_labels.items()),
    ]
    facts += [("dimension", _dimension(dimension)) for dimension in config.dimensions]
    for discovery in config.discovery:
        facts += [("", ""), ("discovery", str(discovery)), ("  every", format_duration(discovery.refresh))]
    for agentos in config.agentos:
        facts += [("", ""), ("agentos", agentos.name), *((f"  {key}", text) for key, text in _instance(agentos))]
    for budget in config.budgets:
        facts += [("", ""), ("budget", budget.name), *((f"  {key}", text) for key, text in _budget(budget))]
    for check in config.reconcile:
        facts += [("", ""), ("reconcile", check.vendor), *((f"  {key}", text) for key, text in _check(check))]
    for push in config.push:
        facts += [("", ""), ("push", push.name), *((f"  {key}", text) for key, text in _push(push))]
    return [escaped(f"{key:<19} {text}").rstrip() for key, text in facts]


def _web(web: Web) -> list[tuple[str, str]]:
    where = "the sockets that systemd hands over" if web.systemd_socket else ", ".join(map(str, web.addresses))
    facts = [("listen_address", where)]
    if web.config_file is not None:
        facts.append(("web.config.file", str(web.config_file)))
    if web.route_prefix or web.telemetry_path != "/metrics":
        facts.append(("metrics", f"{web.route_prefix}{web.telemetry_path}"))
    if web.lifecycle:
        facts.append(("lifecycle", "POST /-/reload reads the configuration anew"))
    return facts


def _dimension(dimension: Dimension) -> str:
    """Where the values come from. Neither ids nor values of a mapping are shown."""
    text = f"{dimension.name}: {dimension.origin}{'.' if dimension.key else ''}{dimension.key}"
    if dimension.values is not None:
        text += f", by a mapping of {len(dimension.values)} ids"
    return f"{text}, hashed" if dimension.hashed else text


def _budget(budget: Budget) -> list[tuple[str, str]]:
    filters = {key: getattr(budget, key) for key in ("agentos", "root", "agent", "model", "user")}
    return [
        ("limit_usd", money.text(budget.limit) + (f" for each {budget.per}" if budget.per else "")),
        ("period", f"{budget.period}, {budget.time_zone}"),
        ("for", ", ".join(f"{key} {value}" for key, value in filters.items() if value) or "everything"),
    ]


def _check(check: Check) -> list[tuple[str, str]]:
    return [
        ("usage", check.usage),
        ("for", f"agentos {check.agentos}" if check.agentos else "all instances together"),
        ("days", str(check.days)),
    ]


def _instance(agentos: AgentOS) -> list[tuple[str, str]]:
    details = [("enrich_runs", "true")] if agentos.enrich_runs else []
    if agentos.databases:
        return [*(fact for database in agentos.databases for fact in _database(database)), *details]
    facts = [
        ("url", agentos.url),
        ("token", _origin(agentos.token_file, agentos.token, agentos.token_env)),
        ("databases", ", ".join(agentos.db_ids) if agentos.db_ids is not None else "all that AgentOS lists"),
        *details,
    ]
    return [*facts, *_way(agentos.proxy, agentos.tls)]


def _push(push: Push) -> list[tuple[str, str]]:
    token, password = push.token, push.password
    facts = [(f"{push.protocol}_url", push.url), ("every", format_duration(push.interval))]
    if push.username is not None:
        facts.append(("password", _origin(password.file, password.value, password.variable)))
    else:
        facts.append(("token", _origin(token.file, token.value, token.variable)))
    facts += [("header", name) for name, _ in push.headers]
    facts += [("label", f"{name} {value}") for name, value in push.labels]
    return [*facts, *_way(push.proxy, push.tls)]


def _origin(file: Path | None, secret: Secret | None, variable: str | None) -> str:
    """Where a token or password comes from."""
    if file is not None:
        return f"from the file {file}"
    return "none" if secret is None else f"from the environment variable {variable}"


def _way(proxy: Secret | None, tls: Tls | None) -> list[tuple[str, str]]:
    facts = [] if proxy is None else [("proxy", redact(proxy.reveal()))]
    if tls is not None:
        for key in ("ca_file", "cert_file", "key_file", "server_name"):
            value = getattr(tls, key)
            if value is not None:
                facts.append((f"tls.{key}", str(value)))
    return facts


def _database(database: Database) -> list[tuple[str, str]]:
    password = _origin(database.password_file, database.password, database.password_env)
    place = database.location
    schema = f", schema {place.schema}" if place.schema else ""
    return [("database", f"{place}{schema}"), ("user", place.user or "none"), ("password", password)]
