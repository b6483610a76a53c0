"""What the targets of `agentos_file_sd` and `agentos_http_sd` become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from exporter.config.secrets import Secret
from exporter.config.settings import AgentOS, Discovery
from exporter.config.values import default_name, parse_name, parse_url
from exporter.core.document import RefusedError, quoted
from exporter.sources.api import proxies

if TYPE_CHECKING:
    from exporter.sources.discovery import Group

_SCHEME: Final = "__scheme__"
_PATH: Final = "__path__"


def instances(
    groups: Sequence[Group], discovery: Discovery, environ: Mapping[str, str]
) -> tuple[list[AgentOS], list[str]]:
    """The instances that a list names, and what is wrong with the others: one bad target costs itself alone.

    A target is `host:port`, with the labels `__scheme__` (http) and `__path__` where it has them, or a whole URL.
    """
    found: dict[str, AgentOS] = {}
    problems: list[str] = []
    for group in groups:
        for target in group.targets:
            try:
                agentos = _instance(target, group.labels, discovery, environ)
            except (RefusedError, proxies.ProxyRefused) as error:
                problems.append(f"{quoted(target)}: {error}")
                continue
            if agentos.name in found:
                problems.append(f"{quoted(target)}: {quoted(agentos.name)} is the name of another one, too")
                continue
            found[agentos.name] = agentos
    return list(found.values()), problems


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
