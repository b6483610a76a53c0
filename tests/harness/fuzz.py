"""Requests that no client should send, thousands of them, to a web server behind TLS and a password."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.harness.patience import HANG
from tests.harness.web import PASSWORD, USER, context

SMUGGLED = ("agentos-exporter is Ready", "agentos-exporter is not ready")
"""What is asked for in bodies alone: such an answer would mean that a body was taken for a request."""
SLOW = 20
"""Connections at a time that never finish what they began."""
_RIGHT = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_INNER = f"GET /-/ready HTTP/1.1\r\nhost: x\r\nauthorization: Basic {_RIGHT}\r\n\r\n"

Shape = Callable[[random.Random], bytes]


def head(line: str = "GET /metrics HTTP/1.1", *headers: str, password: str = _RIGHT, body: str = "") -> bytes:
    """A request as bytes."""
    lines = (line, "host: x", f"authorization: Basic {password}", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def _wrong(chance: random.Random) -> bytes:
    return base64.b64encode(f"{chance.choice((USER, 'x'))}:{chance.random()}".encode())


def _chunked(body: str) -> str:
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


SHAPES: dict[str, Shape] = {
    "good": lambda _: head(),
    "good, any path": lambda chance: head(f"GET /{chance.randbytes(9).hex()} HTTP/1.1"),
    "wrong password": lambda chance: head(password=_wrong(chance).decode()),
    "password that is no base64": lambda chance: head(password=chance.randbytes(30).decode("latin-1").translate(_FLAT)),
    "another scheme": lambda _: b"GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n\r\n",
    "pipelined": lambda chance: head() * chance.randrange(2, 30),
    "pipelined, the last one cut": lambda chance: head() * 3 + head()[: chance.randrange(60)],
    "huge line": lambda chance: head(f"GET /{'a' * chance.randrange(1 << 17)} HTTP/1.1"),
    "huge header": lambda chance: head("GET / HTTP/1.1", f"x: {'a' * chance.randrange(1 << 17)}"),
    "many headers": lambda chance: head("GET / HTTP/1.1", *("x: y",) * chance.randrange(5000)),
    "garbage": lambda chance: chance.randbytes(chance.randrange(1, 3000)),
    "cut": lambda chance: head()[: chance.randrange(90)],
    "length and chunks": lambda _: head(
        "POST / HTTP/1.1", f"content-length: {len(_INNER)}", "transfer-encoding: chunked", body=f"0\r\n\r\n{_INNER}"
    ),
    "two lengths": lambda _: head("POST / HTTP/1.1", "content-length: 0", "content-length: 9", body=_INNER),
    "two lengths in one": lambda _: head("POST / HTTP/1.1", f"content-length: 0, {len(_INNER)}", body=_INNER),
    "negative length": lambda _: head("POST / HTTP/1.1", "content-length: -1", body=_INNER),
    "signed length": lambda _: head("POST / HTTP/1.1", f"content-length: +{len(_INNER)}", body=_INNER),
    "body with a length": lambda _: head("POST / HTTP/1.1", f"content-length: {len(_INNER)}", body=_INNER),
    "body of a GET": lambda _: head("GET / HTTP/1.1", f"content-length: {len(_INNER)}", body=_INNER),
    "body in chunks": lambda _: head("POST / HTTP/1.1", "transfer-encoding: chunked", body=_chunked(_INNER)),
    "chunk of no number": lambda _: head("POST / HTTP/1.1", "transfer-encoding: chunked", body=f"0x0\r\n\r\n{_INNER}"),
    "other encoding": lambda _: head("POST / HTTP/1.1", "transfer-encoding: xchunked", body=_INNER),
    "two encodings": lambda _: head(
        "POST / HTTP/1.1", "transfer-encoding: identity", "transfer-encoding: chunked", body=f"0\r\n\r\n{_INNER}"
    ),
    "folded header": lambda _: head("POST / HTTP/1.1", "x: y", " content-length: 9"),
    "space before the colon": lambda _: head("POST / HTTP/1.1", "content-length : 9", body=_INNER),
    "NUL": lambda _: head("GET / HTTP/1.1", "x: \0"),
    "bare line feeds": lambda _: head().replace(b"\r\n", b"\n"),
    "HTTP/0.9": lambda _: b"GET /metrics\r\n\r\n",
    "HTTP/2": lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "HTTP/9.9": lambda _: head("GET / HTTP/9.9"),
    "no host": lambda _: b"GET /metrics HTTP/1.1\r\n\r\n",
    "two hosts": lambda _: head("GET / HTTP/1.1", "host: y"),
    "any method": lambda chance: head(f"{chance.choice(('PUT', 'TRACE', 'CONNECT', 'x'))} / HTTP/1.1"),
    "whole URL": lambda _: head("GET http://elsewhere.example.com/metrics HTTP/1.1"),
    "odd path": lambda chance: head(f"GET {chance.choice(('//', '/..%2f..', '/%00', '/%ff', '*'))} HTTP/1.1"),
    "upgrade": lambda _: head("GET / HTTP/1.1", "connection: upgrade", "upgrade: websocket"),
    "expects more": lambda _: head("POST / HTTP/1.1", "expect: 100-continue", "content-length: 5"),
}
_FLAT = {10: "a", 13: "a", 0: "a"}
RAW = ("plain HTTP", "garbage for TLS", "a handshake cut", "nothing")
"""What is sent without TLS."""


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        sent: requests by shape.
        answers: answers by status.
        text: every line that the server sent, without those of metrics.

    """

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    text: set[bytes] = field(default_factory=set)


class Hammer:
    """Sends requests of all shapes, some at a time, from one seed."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)
        self._context = context()
        self._slow: list[asyncio.StreamWriter] = []
        self.outcome = Outcome()

    async def send(self, requests: int, *, workers: int = 16) -> None:
        """Send so many requests; a pipeline counts as as many as are in it."""
        left = self.outcome.sent.total() + requests

        async def work() -> None:
            while self.outcome.sent.total() < left:
                async with asyncio.timeout(HANG):
                    await self._one()

        await asyncio.gather(*(work() for _ in range(workers)))
        while self._slow:
            self._end_slow()

    async def _one(self) -> None:
        """One connection, with one to six shapes one after the other."""
        chance = self._chance
        if chance.random() < 0.05:
            await self._raw(chance.choice(RAW))
            return
        with contextlib.suppress(OSError, ssl.SSLError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
            if chance.random() < 0.02:
                await self._slowly(writer)
                return
            shapes = chance.choices(list(SHAPES), k=chance.randrange(1, 7))
            with contextlib.closing(writer):
                for shape in shapes:
                    data = SHAPES[shape](chance)
                    self.outcome.sent[shape] += max(1, data.count(b" /metrics HTTP/1.1"))
                    writer.write(data)
                    await writer.drain()
                if chance.random() < 0.3:
                    writer.transport.abort()  # nobody waits for the answer
                    return
                writer.write(head("GET /-/healthy HTTP/1.1", "connection: close"))
                self._read(await reader.read(-1))

    def _read(self, answer: bytes) -> None:
        for line in answer.split(b"\n"):
            if line.startswith(b"HTTP/1.1 "):
                self.outcome.answers[line[9:12].decode()] += 1
            if not line.startswith((b"agentos_", b"# ", b"python_", b"process_")):
                self.outcome.text.add(line)

    async def _raw(self, kind: str) -> None:
        self.outcome.sent[kind] += 1
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(writer):
                if kind == "plain HTTP":
                    writer.write(head())
                elif kind == "garbage for TLS":
                    writer.write(self._chance.randbytes(self._chance.randrange(1, 3000)))
                elif kind == "a handshake cut":
                    writer.write(bytes.fromhex("160301020001000001fc0303") + self._chance.randbytes(50))
                    writer.write_eof()
                else:
                    return
                self._read(await reader.read(-1))

    async def _slowly(self, writer: asyncio.StreamWriter) -> None:
        """A request that never ends, on a connection that stays open until there are too many of them."""
        self.outcome.sent["slow"] += 1
        writer.write(head()[: self._chance.randrange(1, 60)])
        self._slow.append(writer)
        if len(self._slow) > SLOW:
            self._end_slow()

    def _end_slow(self) -> None:
        writer = self._slow.pop(0)
        writer.close()
        writer.transport.abort()
