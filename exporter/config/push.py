"""The targets of `push`: where metrics are sent to, and as what."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import yaml

from exporter.config.secrets import Found, Noun, Secret
from exporter.config.settings import Credential, Protocol, Push
from exporter.config.values import default_name, parse_label, parse_name, parse_url, within
from exporter.core.document import RefusedError, Table, attempt, kind, quoted, scalar

if TYPE_CHECKING:
    from exporter.config.access import Access

_URLS: Final = {
    "otlp_url": (Protocol.OTLP, "/v1/metrics", "opentelemetry.proto"),
    "remote_write_url": (Protocol.REMOTE_WRITE, "/api/v1/write", "cramjam"),
}
"""By key: the protocol, its usual path, and the package of the extra that it needs."""
_KEYS: Final = (
    *("name", *_URLS, "interval", "timeout", "headers", "token_file", "token_env", "username"),
    *("password_file", "password_env", "tls", "resource", "labels"),
)
_PORTS: Final = {"http": 80, "https": 443}
_LONGEST: Final = 1024
"""Longest value of a header, label or attribute, in characters."""
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,99}")
_OURS: Final = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"),
        "x-prometheus-remote-write-version",
    }
)
"""Headers that the exporter sets itself."""


class _Free(Table):
    """A mapping whose keys the user chooses."""

    def takes(self, key: str) -> bool:  # noqa: ARG002 - see Table
        """See Table."""
        return True


def read_push(table: Table, access: Access) -> tuple[Push, ...]:
    """The push targets of a configuration; mistakes are problems of the table."""
    targets: dict[str, Push] = {}
    for _, entry in table.mappings("push", "[{otlp_url: https://example.com/v1/metrics}]", _KEYS):
        protocol, url = _url(entry)
        name = entry.parsed("name", parse_name)
        token, password = (_credential(noun, access.secret(entry, noun)) for noun in ("token", "password"))
        username = entry.parsed("username", _user)
        _check_authentication(entry)
        target = Push(
            name=name or _default_name(url or ""),
            url=url or "",
            protocol=protocol,
            interval=entry.parsed("interval", within(1.0, 3600.0)) or 30.0,
            timeout=entry.parsed("timeout", within(0.1, 600.0)) or 10.0,
            headers=tuple((key, Secret(text)) for key, text in _pairs(entry, "headers", _header, _header_value)),
            username=username,
            password=password,
            token=token,
            tls=access.tls(entry, url),
            labels=_labels(entry, protocol),
            proxy=None if url is None else access.environment_proxy(url),
        )
        if url is not None and target.name in targets:
            entry.add("name", f"{quoted(target.name)} is already the name of another target; give this one a name")
        elif url is not None:
            targets[target.name] = target
    return tuple(targets.values())


def _url(entry: Table) -> tuple[Protocol, str | None]:
    """The protocol of a target, and its URL; None if the URL is missing or refused."""
    url_keys = [key for key in _URLS if key in entry.entries]
    if len(url_keys) != 1:
        key = url_keys[1] if url_keys else "otlp_url"
        entry.add(key, f"give {' or '.join(_URLS)}, not both" if url_keys else f"is missing; give it or {[*_URLS][1]}")
        return Protocol.OTLP, None
    protocol, usual, package = _URLS[url_keys[0]]
    if not _is_installed(package):
        entry.add(url_keys[0], "needs the extra push: install agentos-exporter[push]")

    def parse(text: str) -> str:
        url = parse_url(text)
        if not urlsplit(url).path:
            raise RefusedError(f"the URL has no path, which usually is {usual}")
        return url

    return protocol, entry.parsed(url_keys[0], parse)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # what it is part of
        return False


def _default_name(url: str) -> str:
    """Host and port."""
    parts = urlsplit(url)
    port = "" if parts.port or not url else f":{_PORTS[parts.scheme]}"
    return default_name(url) + port


def _credential(noun: Noun, keys: Found) -> Credential:
    file, variable, value = keys
    return Credential(noun, value, file, variable)


def _check_authentication(entry: Table) -> None:
    """A token or a user with a password, not both."""
    passwords = {"password_file", "password_env"} & entry.entries.keys()
    if "username" in entry.entries and not passwords:
        entry.add("username", "needs password_file or password_env too")
    for key in sorted(passwords):
        if "username" not in entry.entries:
            entry.add(key, "needs username too")
    if "username" in entry.entries and {"token_file", "token_env"} & entry.entries.keys():
        entry.add("username", "give a token or a user with a password, not both")


def _labels(entry: Table, protocol: Protocol) -> tuple[tuple[str, str], ...]:
    key, other, what, parse = (
        ("resource", "labels", "otlp_url", _attribute)
        if protocol is Protocol.OTLP
        else ("labels", "resource", "remote_write_url", _label)
    )
    if other in entry.entries:
        entry.add(other, f"makes no sense with {what}; it has {key}")
    return tuple(_pairs(entry, key, parse, _text))


def _pairs(
    entry: Table, key: str, parse_key: Callable[[str], str], parse_value: Callable[[str], str]
) -> list[tuple[str, str]]:
    """The entries of a mapping whose keys the user chooses."""
    node = entry.entries.get(key)
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        entry.add(key, f"must be a mapping of names to values, not {kind(node)}")
        return []
    inner = _Free(node, entry.where(key), (), entry.problems)
    pairs: dict[str, tuple[str, str]] = {}
    for name, value in inner.entries.items():
        where = inner.where(name) if inner.plain_key.fullmatch(name) else inner.path
        text = scalar(value, where, inner.problems)
        parsed_name = attempt(parse_key, name, inner.path, inner.problems, value)
        parsed = None if text is None else attempt(parse_value, text, where, inner.problems, value)
        if parsed_name is None or parsed is None:
            continue
        if parsed_name.lower() in pairs:
            inner.problems.add(where, "is given twice", value)
        pairs[parsed_name.lower()] = (parsed_name, parsed)
    return list(pairs.values())


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise RefusedError("a name in it is not that of a header")
    if text.lower() in {"authorization", "proxy-authorization"}:
        raise RefusedError("authorization does not belong here: use token_file, or username and password_file")
    if text.lower() in _OURS:
        raise RefusedError(f"{quoted(text)} is set by the exporter itself")
    return text


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip() or len(text) > _LONGEST:
        raise RefusedError(f"must be printable ASCII without spaces around, of at most {_LONGEST} characters")
    return text


def _user(text: str) -> str:
    if not text.isprintable() or ":" in text or len(text) > _LONGEST:
        raise RefusedError("must be printable, without a colon")
    return text


def _label(text: str) -> str:
    parse_label(text)
    if text.startswith("__") or text in {"le", "quantile"}:
        raise RefusedError(f"{quoted(text)} is a label of Prometheus's own")
    return text


def _attribute(text: str) -> str:
    if not _ATTRIBUTE.fullmatch(text):
        raise RefusedError("a name in it is not that of an attribute, such as deployment.environment.name")
    return text


def _text(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST:
        raise RefusedError(f"must be printable, of at most {_LONGEST} characters")
    return text
