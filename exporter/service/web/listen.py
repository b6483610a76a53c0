"""Listening sockets: of addresses, of paths, and those that systemd hands over."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import ListenError

if TYPE_CHECKING:
    from exporter.config import Address

_HELP: Final = {
    errno.EADDRINUSE: "the address is already in use; is another exporter running?",
    errno.EACCES: "permission denied; ports below 1024 need a privilege",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}
_MAX_PORT: Final = 65535
_FIRST_OF_SYSTEMD: Final = 3
"""Descriptors from here on are sockets that systemd opened: sd_listen_fds(3)."""


def listen(addresses: Sequence[Address]) -> list[socket.socket]:
    """A listening socket for each address. Raises ListenError; none is left open then."""
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(bind_path(Path(address.path)) if address.path else bind(address.host, address.port))
            for address in addresses
        ]
        opened.pop_all()
    return listeners


def from_systemd(environ: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets of `LISTEN_FDS`. Raises ListenError if there are none for this process."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not re.fullmatch("[1-9][0-9]{0,3}", count):
        raise ListenError("--web.systemd-socket: systemd hands over no socket; is there a .socket unit?")
    try:
        listeners = [socket.socket(fileno=_FIRST_OF_SYSTEMD + number) for number in range(int(count))]
    except OSError as error:
        raise ListenError(f"--web.systemd-socket: what systemd handed over is no socket: {error.strerror}") from None
    for listener in listeners:
        listener.set_inheritable(False)
        if listener.type != socket.SOCK_STREAM:
            raise ListenError("--web.systemd-socket: the socket must be a stream (ListenStream)")
        _send_at_once(listener)
    return listeners


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; an empty host or `::` means every interface, IPv6 and IPv4, and port 0 a free port.

    A name with several addresses is served on the first that can be had, IPv4 first. Raises ListenError.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= _MAX_PORT:
        raise ListenError(f"cannot listen on {where}: the port must lie between 0 and {_MAX_PORT}")
    failure = OSError(errno.EADDRNOTAVAIL, "")
    for family, address in _addresses(host, port, where):
        try:
            # Listening at once: until one of them does, two sockets may share an address.
            listener = socket.create_server(
                address, family=family, dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6()
            )
            _send_at_once(listener)
        except OSError as error:
            failure = error
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                break
        else:
            return listener
    raise _cannot_listen(where, failure)


def bind_path(path: Path) -> socket.socket:
    """A listening socket at a path, for everybody who may write to its folder. Raises ListenError.

    A socket on which no process listens any more is replaced.
    """
    where = f"unix:{path}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_over(path):
            path.unlink()
        listener.bind(str(path))
        listener.listen()
    except OSError as error:
        listener.close()
        raise _cannot_listen(where, error) from error
    return listener


def _is_left_over(path: Path) -> bool:
    """Whether an earlier process left a socket behind at this path."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # noqa: FBT003 - who listens may be too busy to accept
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _send_at_once(listener: socket.socket) -> None:
    """Spare answers in two writes the 40 ms of the client's delayed ACK.

    asyncio does so for sockets of protocol TCP; those of `create_server` have protocol 0. Connections inherit it.
    """
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _cannot_listen(where: str, error: OSError) -> ListenError:
    text = _HELP.get(error.errno or 0, error.strerror or str(error))
    failure = ListenError(f"cannot listen on {where}: {text}")
    failure.__cause__ = error
    return failure


def _addresses(host: str, port: int, where: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if not host:
        every = (socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what an empty host asks for
        return [(socket.AF_INET6, ("::", port)), every] if socket.has_dualstack_ipv6() else [every]
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {where}: {host!r} is neither an address nor a known host") from error
    resolved.sort(key=lambda info: info[0] != socket.AF_INET)
    return [(info[0], info[4]) for info in resolved]
