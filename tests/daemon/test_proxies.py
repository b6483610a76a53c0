"""Requests to AgentOS go through the proxy that was chosen: plain HTTP and SOCKS, with a password or without."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from exporter.core.errors import Unreachable
from exporter.sources.api.http import Api

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    """Listen on loopback, and yield the port."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def asked(url: str, proxy: str | None) -> bytes:
    api = Api(url, read_token=lambda: None, proxy=proxy, monotonic=time.monotonic)
    try:
        return (await api.get("/config", {}, endpoint="config", timeout=10)).body
    finally:
        await api.aclose()


@pytest.mark.parametrize("login", ["", "ann:S3CRET@"])
async def test_an_http_proxy(login: str) -> None:
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)

    async with listening(proxy) as port:
        assert await asked("http://agentos.invalid:7777", f"http://{login}127.0.0.1:{port}") == b"{}"
    assert heads[0].startswith(b"GET http://agentos.invalid:7777/config HTTP/1.1\r\n")
    assert (base64.b64encode(b"ann:S3CRET") in heads[0]) == bool(login)


async def test_a_socks_proxy() -> None:
    """By the hand-shake of RFC 1928; the name is left to the proxy."""
    hosts: list[tuple[bytes, int]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        assert kind == 3, "a name"
        name = await reader.readexactly((await reader.readexactly(1))[0])
        hosts.append((name, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)

    async with listening(proxy) as port:
        assert await asked("http://agentos.invalid:7777", f"socks5h://127.0.0.1:{port}") == b"{}"
    assert hosts == [(b"agentos.invalid", 7777)]


async def test_the_environment_alone_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked when the configuration was read; whoever says `none` means it."""

    async def agentos(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)

    monkeypatch.setenv("HTTP_PROXY", "ftp://nonsense")
    monkeypatch.setenv("NO_PROXY", "fd00::/8")
    async with listening(agentos) as port:
        assert await asked(f"http://127.0.0.1:{port}", None) == b"{}"


async def test_a_proxy_that_is_not_there_is_said_without_its_password() -> None:
    async with listening(lambda *_: asyncio.sleep(0)) as port:
        pass
    with pytest.raises(Unreachable) as refused:
        await asked("http://agentos.invalid", f"http://ann:S3CRET@127.0.0.1:{port}")
    assert "S3CRET" not in str(refused.value)
