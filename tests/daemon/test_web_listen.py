"""Where the web server listens besides TCP: paths, several addresses, sockets of systemd."""

import os
import socket
import sys
from pathlib import Path

import httpx
import pytest

from exporter.config import Address
from exporter.core.errors import ListenError
from exporter.service.web.app import make_app
from exporter.service.web.listen import bind_path, from_systemd, listen
from exporter.service.web.server import Server
from tests.daemon.test_web import FakeSite


async def test_several_addresses(tmp_path):
    path = tmp_path / "exporter.sock"
    server = Server(make_app(FakeSite()), listen([Address(path=str(path)), Address("127.0.0.1", 0)]))
    await server.start()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        assert (await client.get("http://x/metrics")).text == "text\n"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text == "text\n"
    await server.stop()


def test_if_one_cannot_be_had_all_are_let_go(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: the address is already in use"):
            listen([Address(path=str(tmp_path / "s")), Address("127.0.0.1", port)])


def test_a_socket_that_was_left_behind_is_replaced(tmp_path):
    path = tmp_path / "s"
    bind_path(path).close()  # as after kill -9: the file stays
    assert path.is_socket()
    with bind_path(path), pytest.raises(ListenError, match="already in use"):
        bind_path(path)


@pytest.mark.parametrize(("name", "message"), [("file", "already in use"), ("nowhere/s", "No such file or directory")])
def test_paths_that_cannot_be_had(tmp_path, name, message):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ListenError, match=message):
        bind_path(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}]
)
def test_systemd_hands_over_nothing(environ):
    with pytest.raises(ListenError, match="systemd hands over no socket"):
        from_systemd(environ)


def test_systemd_hands_over_sockets(tmp_path: Path) -> None:
    """In a process of its own: descriptors count from 3."""
    script = """
import os, socket
from exporter.service.web.listen import from_systemd
one, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
ports = [one.getsockname()[1], other.getsockname()[1]]
copies = [os.dup(one.fileno()), os.dup(other.fileno())]
one.detach(), other.detach()
os.dup2(copies[0], 3), os.dup2(copies[1], 4)
listeners = from_systemd({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
assert [listener.getsockname()[1] for listener in listeners] == ports
os._exit(0)
"""
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", script]) == 0
