"""The proxy on the way to an AgentOS, from the variables that clusters and shells set.

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` name a proxy, `NO_PROXY` the destinations that are reached without one; the
lower-case names come first, as in curl and Go. An entry of `NO_PROXY` is a host, which includes its subdomains, an
address, a range of addresses (`10.0.0.0/8`, `fd00::/8`), each with a port or without, or `*` for everything.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_PORTS: Final = {"http": 80, "https": 443}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProxyRefused(ValueError):
    """A proxy that cannot be used. The text names the cure, and never the value: it may hold a password.

    `variable` is the environment variable with the value, '' if it is from elsewhere.
    """

    variable = ""


@dataclass(frozen=True, slots=True)
class _Exception:
    """A destination without a proxy: a range of addresses, or a host with its subdomains; `port` None: at any port."""

    network: Network | None
    host: str
    port: int | None

    def holds(self, host: str, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.host in {"", host} or host.endswith(f".{self.host}")
        try:
            return ipaddress.ip_address(host) in self.network
        except ValueError:
            return False


def proxy_url(text: str) -> str:
    """The URL of a proxy as it is to be used: without spaces around, with a scheme.

    Raises:
        ProxyRefused: where it is none.

    """
    text = text.strip()
    text = text if "://" in text else f"http://{text}"
    cure = "write it as http://host:port, https://host:port or socks5://host:port"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ProxyRefused(f"is no URL of a proxy; {cure}, with / and @ in a password as %2F and %40") from None
    if parts.scheme not in _SCHEMES:
        raise ProxyRefused(f"has a scheme that no proxy has; {cure}")
    if not host or port == 0:
        raise ProxyRefused(f"names no host; {cure}")
    return text


def chosen(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy for requests to this URL, None for none.

    Raises:
        ProxyRefused: where the `variable` that holds cannot be used.

    """
    target = urlsplit(url)
    host = (target.hostname or "").rstrip(".")
    port = target.port or _PORTS.get(target.scheme)
    name, value = _first(environ, f"{target.scheme}_proxy", "all_proxy")
    if not value:
        return None
    exempt, exceptions = _first(environ, "no_proxy")
    blamed = exempt
    try:
        if any(exception.holds(host, port) for exception in _exceptions(exceptions)):
            return None
        blamed = name
        return proxy_url(value)
    except ProxyRefused as error:
        error.variable = blamed
        raise


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """(name, value) of the first variable that is set to something, lower case first; ('', '') if none is."""
    for name in names:
        for spelling in (name, name.upper()):
            if value := environ.get(spelling, "").strip():
                return spelling, value
    return "", ""


def _exceptions(text: str) -> Iterator[_Exception]:
    for entry in re.split(r"[\s,]+", text):
        if entry == "*":
            yield _Exception(None, "", None)
        elif entry:
            yield _exception(entry)


def _exception(entry: str) -> _Exception:
    bare = entry.partition("://")[2] or entry
    if "/" in bare or bare.count(":") > 1:
        inside = bare.removeprefix("[")
        address, _, rest = inside.partition("]")
        suffix, _, port = rest.partition(":")
        try:
            network = ipaddress.ip_network(address + suffix, strict=False)
            return _Exception(network, "", int(port) if port else None)
        except ValueError:
            raise ProxyRefused(f"{entry!r} is neither an address nor a range such as 10.0.0.0/8 or fd00::/8") from None
    host, _, port = bare.partition(":")
    if port and not port.isdecimal():
        raise ProxyRefused(f"{entry!r} has a port that is no number")
    number = int(port) if port else None
    host = host.lower().removeprefix("*").removeprefix(".").rstrip(".")
    try:
        return _Exception(ipaddress.ip_network(host), "", number)
    except ValueError:
        return _Exception(None, host, number)
