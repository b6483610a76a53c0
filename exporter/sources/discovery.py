"""Lists of AgentOS instances, in the formats that Prometheus reads for its own targets: files, and an HTTP endpoint.

The formats are those of Prometheus's `file_sd_config` and `http_sd_config`: a list of groups of targets with labels.
"""

from __future__ import annotations

import glob
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import yaml

from exporter import __version__
from exporter.core.document import compose, shown
from exporter.core.errors import BadAnswer, ConfigError, ServerFailed, SourceTimeout, Unreachable

TIMEOUT: Final = 10.0
"""Seconds that an endpoint has for its list."""
_MOST_BYTES: Final = 16 * 1024 * 1024
_DEPTH: Final = 6


class Group(msgspec.Struct, frozen=True):
    """Targets that share labels."""

    targets: list[str]
    labels: dict[str, str] = {}


def paths(patterns: Sequence[str]) -> list[Path]:
    """The files that these patterns name now, each once."""
    return sorted({Path(found) for pattern in patterns for found in glob.glob(pattern)})  # noqa: PTH207 - absolute ones


def read(path: Path) -> tuple[list[Group], list[str]]:
    """The groups of a file, and what is wrong with single ones. Raises SourceError where the file as a whole is."""
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
    """The groups of an endpoint, and what is wrong with single ones. Raises SourceError where the answer as a whole is.

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
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise BadAnswer("the list is larger than 16 MiB")
    except httpx.TimeoutException:
        raise SourceTimeout("the list did not come in time") from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise Unreachable(f"the list cannot be fetched: {type(error).__name__}") from None
    if answer.status_code != httpx.codes.OK:
        raise ServerFailed(f"the endpoint answers {answer.status_code}")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise BadAnswer("the list is not JSON") from None
    return _groups(value, "the list")


def _groups(value: object, where: str) -> tuple[list[Group], list[str]]:
    if value is None:
        return [], []
    if not isinstance(value, list):
        raise BadAnswer(f"{where}: must be a list of groups with targets and labels")
    groups: list[Group] = []
    problems: list[str] = []
    for number, entry in enumerate(value):
        try:
            groups.append(msgspec.convert(entry, Group))
        except msgspec.ValidationError as error:
            problems.append(f"{where}[{number}]: {shown(str(error))}")
    return groups, problems


def _plain(node: yaml.Node | None) -> Any:  # noqa: ANN401 - what YAML says, of texts
    """A YAML document as lists, mappings and texts."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(one) for one in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(one) for key, one in node.value}
    return None if node is None or node.tag == "tag:yaml.org,2002:null" else str(node.value)
