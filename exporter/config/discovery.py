"""`agentos_file_sd` and `agentos_http_sd`: lists of instances as configured, and what their targets become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.config.instances import API_KEYS, read_db_ids
from exporter.config.secrets import Secret, secret_path
from exporter.config.settings import AgentOS, Discovery
from exporter.config.values import (
    DAY,
    default_name,
    parse_label,
    parse_list_url,
    parse_name,
    parse_pattern,
    parse_switch,
    parse_url,
    within,
)
from exporter.core.document import RefusedError, Table, attempt, quoted, scalar
from exporter.sources.api import proxies

if TYPE_CHECKING:
    from exporter.config.access import Access
    from exporter.sources.discovery import Group

_SCHEME: Final = "__scheme__"
_PATH: Final = "__path__"
_FILE_REFRESH: Final = 300.0
_HTTP_REFRESH: Final = 60.0
"""Prometheus's own defaults, in seconds."""
_FILE_SD: Final = ("files", "refresh_interval", "name_label", *API_KEYS, "enrich_runs")
_HTTP_SD: Final = ("url", "refresh_interval", "name_label", "endpoint_token_file", *API_KEYS, "enrich_runs")


def read_discovery(table: Table, access: Access) -> tuple[Discovery, ...]:
    """The lists of instances of a configuration; mistakes are problems of the table."""
    discoveries: list[Discovery] = []
    for _, entry in table.mappings("agentos_file_sd", "[{files: [targets/*.yml]}]", _FILE_SD):
        files = _files(entry, access.base)
        discovery = _list(entry, "file", files, access)
        if files:
            discoveries.append(discovery)
    for _, entry in table.mappings("agentos_http_sd", "[{url: https://example.com/targets}]", _HTTP_SD):
        url = _endpoint(entry)
        discovery = _list(entry, "http", url, access)
        if url:
            discoveries.append(discovery)
    return tuple(discoveries)


def _list(entry: Table, mechanism: str, where: tuple[str, ...], access: Access) -> Discovery:
    token_file, token_env, secret = access.secret(entry, "token")
    template = AgentOS(
        "",
        "",
        secret,
        token_file,
        token_env,
        read_db_ids(entry),
        access.tls(entry, None),
        entry.parsed("enrich_runs", parse_switch) or False,
        proxy=access.proxy(entry, None),
    )
    default = _FILE_REFRESH if mechanism == "file" else _HTTP_REFRESH
    refresh = entry.parsed("refresh_interval", within(1.0, DAY)) or default
    label = entry.parsed("name_label", parse_label) or "agentos"
    endpoint_token = entry.parsed("endpoint_token_file", secret_path(access.base, "token"))
    return Discovery(mechanism, where, refresh, template, label, endpoint_token)


def _files(entry: Table, base: Path) -> tuple[str, ...]:
    """Patterns of files, absolute."""
    if "files" not in entry.entries:
        entry.add("files", "is missing; it is a list of paths, which may have * in their last part")
    files: list[str] = []
    for i, node in enumerate(entry.items("files", "[targets/*.yml]") or ()):
        where = f"{entry.where('files')}[{i}]"
        text = scalar(node, where, entry.problems)
        pattern = None if text is None else attempt(parse_pattern(base), text, where, entry.problems, node)
        if pattern is not None:
            files.append(pattern)
    return tuple(files)


def _endpoint(entry: Table) -> tuple[str, ...]:
    if "url" not in entry.entries:
        entry.add("url", "is missing; it is where the list is")
    url = entry.parsed("url", parse_list_url)
    return () if url is None else (url,)


def instances(
    groups: Sequence[Group], discovery: Discovery, environ: Mapping[str, str]
) -> tuple[list[AgentOS], list[str]]:
    """Make instances of the targets in a list.

    A target is `host:port`, with the labels `__scheme__` (http) and `__path__` if it has them, or a whole URL.

    Args:
        groups: The groups of targets.
        discovery: What is configured of the list.
        environ: The environment variables.

    Returns:
        The instances, and the problems of targets that cannot be used.

    """
    by_name: dict[str, AgentOS] = {}
    problems: list[str] = []
    for group in groups:
        for target in group.targets:
            try:
                agentos = _instance(target, group.labels, discovery, environ)
            except (RefusedError, proxies.ProxyRefused) as error:
                problems.append(f"{quoted(target)}: {error}")
                continue
            if agentos.name in by_name:
                problems.append(f"{quoted(target)}: {quoted(agentos.name)} is the name of another one, too")
                continue
            by_name[agentos.name] = agentos
    return list(by_name.values()), problems


def _instance(target: str, labels: Mapping[str, str], discovery: Discovery, environ: Mapping[str, str]) -> AgentOS:
    whole = target if "://" in target else f"{labels.get(_SCHEME, 'http')}://{target}{labels.get(_PATH, '')}"
    url = parse_url(whole)
    name = labels.get(discovery.name_label)
    proxy = discovery.template.proxy
    if proxy is None and (chosen := proxies.chosen(url, environ)) is not None:
        proxy = Secret(chosen)
    return replace(
        discovery.template,
        name=default_name(url) if name is None else parse_name(name),
        url=url,
        proxy=proxy,
        discovered=True,
    )
