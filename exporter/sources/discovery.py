"""Lists of AgentOS instances, in the formats that Prometheus reads for its own targets: files, and an HTTP endpoint.

The formats are those of Prometheus's `file_sd_config` and `http_sd_config`: a list of groups of targets with labels.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import yaml

from exporter import __version__
from exporter.core.document import compose, shown
from exporter.core.errors import BadAnswer, ConfigError, ServerFailed, SourceTimeout, Unreachable
from exporter.sources.api import proxies

TIMEOUT: Final = 10.0
"""Seconds that an endpoint has for its list."""
_MOST_BYTES: Final = 16 * 1024 * 1024
_DEPTH: Final = 6


@dataclass(frozen=True, slots=True)
class Group:
    """Targets that share labels."""

    targets: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def paths(patterns: Sequence[str]) -> list[Path]:
    """The files that these patterns name now, each once; a path without wildcards is there in any case.

    Raises SourceError where a folder cannot be read: that is no list without targets.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        if not glob.has_magic(pattern):
            paths.add(Path(pattern))
            continue
        folder = Path(pattern).parent
        try:
            with os.scandir(folder):
                pass
        except OSError as error:
            raise BadAnswer(f"{folder}: {error.strerror}") from None
        paths.update(map(Path, glob.glob(pattern)))  # noqa: PTH207 - absolute ones
    return sorted(paths)


def read(path: Path) -> tuple[list[Group], list[str]]:
    """The groups of a file, and the problems of single ones. Raises SourceError if the whole file is wrong."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise BadAnswer(f"{path}: is larger than 16 MiB")
        value = msgspec.json.decode(raw) if path.suffix == ".json" else _plain(compose(raw, deepest=_DEPTH))
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"{path}: {shown(getattr(error, 'strerror', None) or str(error))}") from None
    except ConfigError as error:
        raise BadAnswer(f"{path}: {'; '.join(error.problems)}") from None
    return _groups(value, str(path))


async def fetch(url: str, *, token: str | None, refresh: float) -> tuple[list[Group], list[str]]:
    """The groups of an address, and the problems of single ones. Raises SourceError if the whole answer is wrong.

    Args:
        url: Where the list is.
        token: A bearer token for the endpoint.
        refresh: Seconds until the next time, which Prometheus tells the endpoint.

    """
    headers = {
        "Accept": "application/json",
        "User-Agent": f"agentos-exporter/{__version__}",
        "X-Prometheus-Refresh-Interval-Seconds": f"{refresh:g}",
    }
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = bytearray()
    try:
        # The proxies that hold towards AgentOS hold here, too; httpx's own reading of the environment knows no ranges.
        proxy = proxies.chosen(url, os.environ)
        async with (
            asyncio.timeout(TIMEOUT),
            httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, proxy=proxy) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise BadAnswer("the list is larger than 16 MiB")
    except (TimeoutError, httpx.TimeoutException):
        raise SourceTimeout("the list did not come in time") from None
    except proxies.ProxyRefused as error:
        raise Unreachable(f"{error.variable}: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise Unreachable(f"the list cannot be fetched: {type(error).__name__}") from None
    if answer.status_code != httpx.codes.OK:
        raise ServerFailed(f"the endpoint answers {answer.status_code}")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise BadAnswer("the list is not JSON") from None
    return _groups(value, "the list")


def _groups(value: object, where: str) -> tuple[list[Group], list[str]]:
    """A wrong target affects no other. A wrong group makes the list wrong: it may have named many targets."""
    if not isinstance(value, list):
        raise BadAnswer(f"{where}: must be a list of groups with targets and labels; [] names none")
    groups: list[Group] = []
    problems: list[str] = []
    for number, entry in enumerate(value):
        targets, labels = (entry.get("targets"), entry.get("labels") or {}) if isinstance(entry, dict) else (None, None)
        if not isinstance(targets, list) or not isinstance(labels, dict):
            raise BadAnswer(f"{where}[{number}]: must be a group: a list of targets, and labels")
        texts = tuple(target for target in targets if isinstance(target, str))
        if len(texts) < len(targets):
            problems.append(f"{where}[{number}].targets: a target must be a text")
        groups.append(Group(texts, {str(label): str(text) for label, text in labels.items()}))
    return groups, problems


def _plain(node: yaml.Node | None) -> Any:  # noqa: ANN401 - what YAML says, of texts
    """A YAML document as lists, mappings and texts."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    return None if node is None or node.tag == "tag:yaml.org,2002:null" else str(node.value)
