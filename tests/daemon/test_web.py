import asyncio
import contextlib
import errno
import gzip
import logging
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client.exposition import choose_encoder

from exporter.core.errors import ListenError
from exporter.metrics.render import Rendered
from exporter.service.web import page as landing
from exporter.service.web import server as web
from exporter.service.web.app import make_app
from exporter.service.web.listen import bind
from exporter.service.web.negotiation import accepts_gzip, negotiate
from exporter.service.web.page import shown_url
from exporter.service.web.server import Server
from exporter.service.web.site import InstanceStatus

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

# As sent by a real Prometheus 2.42, and as built by 3.0, by later releases of 3.x, and by 3.x that asks for protobuf.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_0 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTO = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT = "text/plain;version=1.0.0;escaping=underscores;q=0.6,*/*;q=0.5"
CURL = "*/*"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@dataclass
class FakeSite:
    version: str = "1.2.3"
    output: Rendered | None = field(
        default_factory=lambda: Rendered(b"text\n", b"open\n", gzip.compress(b"text\n"), gzip.compress(b"open\n"))
    )
    is_ready: bool = True
    statuses: list[InstanceStatus] = field(default_factory=list)
    scrapes: int = 0

    def rendered(self) -> Rendered | None:
        return self.output

    def scraped(self) -> None:
        self.scrapes += 1

    def ready(self) -> bool:
        return self.is_ready

    def instances(self) -> list[InstanceStatus]:
        return self.statuses


@pytest.fixture
def site() -> FakeSite:
    return FakeSite()


@contextlib.asynccontextmanager
async def serving(site: FakeSite, now: float = 1000.0) -> AsyncIterator[Server]:
    server = Server(make_app(site, now=lambda: now), [bind("127.0.0.1", 0)])
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def server(site: FakeSite) -> AsyncIterator[Server]:
    async with serving(site) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as found:
        yield found


async def talk(server: Server, sent: bytes, *, end: bool = False) -> bytes:
    """What the server answers to raw bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(sent)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the server does by itself: it tells nobody."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Negotiation


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS_2, f"{OPENMETRICS}; escaping=underscores"),
        (PROMETHEUS_3_0, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROMETHEUS_3, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROMETHEUS_3_PROTO, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROMETHEUS_3_TEXT, "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0", f"{OPENMETRICS}; escaping=underscores"),
        ("text/plain;version=0.0.4,application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", TEXT),
        (CURL, TEXT),
        (FIREFOX, TEXT),
        (CHROME, TEXT),
        ("", TEXT),
        ("text/*", TEXT),
        ("application/json", TEXT),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", TEXT),
    ],
)
def test_content_type_is_the_one_that_prometheus_client_chooses(accept, content_type):
    openmetrics, chosen = negotiate(accept)
    assert chosen == content_type == choose_encoder(accept)[1]
    assert openmetrics == content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        # prometheus_client knows no q-values
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.8", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0,text/plain;q=0.1", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.9,*/*;q=0.1", f"{OPENMETRICS}; escaping=underscores"),
        ("*/*, application/openmetrics-text;version=1.0.0", f"{OPENMETRICS}; escaping=underscores"),
        ('Application/OpenMetrics-Text ; Version="1.0.0" ; Q=1.0', f"{OPENMETRICS}; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0;q=2", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=nan", TEXT),
        # versions and escapings that are not served
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=x", TEXT),
        ("text/plain;version=9", TEXT),
        ("application/openmetrics-text;version=1.0.0;escaping=dots", f"{OPENMETRICS}; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0;escaping=\r\nx: y", f"{OPENMETRICS}; escaping=underscores"),
        (";;;,,=,q", TEXT),
        ("," * 10_000, TEXT),
    ],
)
def test_content_type_of_other_requests(accept, content_type):
    assert negotiate(accept)[1] == content_type


@pytest.mark.parametrize(
    ("header", "gzipped"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("deflate, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("", False),
        ("identity", False),
        ("*", False),
        ("br", False),
        ("gzip;q=0", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("gzip;q=1, identity;q=0.5", True),
        ("gzipped", False),
    ],
)
def test_accept_encoding(header, gzipped):
    assert accepts_gzip(header) is gzipped


# Routes


@pytest.mark.parametrize(
    ("accept", "encoding", "body"),
    [
        (PROMETHEUS_2, "gzip", b"open\n"),
        (PROMETHEUS_3, "identity", b"open\n"),
        (CURL, "gzip", b"text\n"),
        (CURL, "", b"text\n"),
    ],
)
async def test_metrics(client, accept, encoding, body):
    answer = await client.get("/metrics?collect[]=x&name[]=y", headers={"accept": accept, "accept-encoding": encoding})
    assert answer.status_code == 200
    assert answer.content == body
    assert answer.headers["content-type"] == negotiate(accept)[1]
    assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert int(answer.headers["content-length"]) == answer.num_bytes_downloaded
    assert "server" not in answer.headers
    assert "date" in answer.headers


async def test_gzip_on_the_wire_is_what_was_compressed_before(client, site):
    async with client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as answer:
        assert b"".join([part async for part in answer.aiter_raw()]) == site.output.text_gzip


async def test_headers_on_several_lines_count_as_one(client):
    headers = [("accept", "text/plain;q=0.1"), ("accept", "application/openmetrics-text;q=0.9")]
    assert (await client.get("/metrics", headers=headers)).content == b"open\n"


async def test_every_get_of_metrics_is_one_scrape_and_nothing_else_is(client, site):
    for expected in (1, 2):
        await client.get("/metrics?x=1")
        assert site.scrapes == expected
    await client.head("/metrics")
    await client.post("/metrics")
    for path in ("/", "/metrics/", "/metricsx", "/-/healthy", "/-/ready", "/favicon.ico"):
        await client.get(path)
    assert site.scrapes == 2


async def test_before_anything_is_rendered_there_is_no_scrape(client, site):
    site.output = None
    answer = await client.get("/metrics")
    assert (answer.status_code, site.scrapes) == (503, 0)


async def test_what_was_scraped_is_what_is_sent(client, site, monkeypatch):
    def scraped() -> None:
        site.output = Rendered(b"newer", b"newer", b"newer", b"newer")

    monkeypatch.setattr(site, "scraped", scraped)
    assert (await client.get("/metrics")).content == b"text\n"


async def test_head_has_the_headers_of_get_and_no_body(client):
    for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/nowhere"):
        answer, head = await client.get(path), await client.head(path)
        assert head.content == b""
        assert answer.content
        for each in (answer, head):
            each.headers.pop("date")
        assert (head.status_code, head.headers) == (answer.status_code, answer.headers)


async def test_health(client, site):
    answer = await client.get("/-/healthy")
    assert (answer.status_code, answer.text) == (200, "agentos-exporter is Healthy.\n")
    site.is_ready = False
    assert (await client.get("/-/healthy")).status_code == 200


async def test_ready(client, site):
    answer = await client.get("/-/ready")
    assert (answer.status_code, answer.text) == (200, "agentos-exporter is Ready.\n")
    site.is_ready = False
    assert (await client.get("/-/ready")).status_code == 503


async def test_other_paths(client):
    for path in ("/nowhere", "/metrics/", "/%2fmetrics", "/-/", "/-/quit", "/../etc/passwd", "/%00"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_other_methods(server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"):
        for path in ("/", "/metrics", "/-/healthy", "/-/ready"):
            answer = await talk(server, f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 405 "), (method, path)
            assert b"\r\nallow: GET, HEAD\r\n" in answer or b"\r\nallow: HEAD, GET\r\n" in answer


# The landing page


async def test_landing_page(client, site):
    site.statuses = [
        InstanceStatus("prod", "https://agentos.example.com", "ok", 988.0, 988.0),
        InstanceStatus("staging", "https://u:p@staging:7777/", "unreachable", 880.0, None, "connection refused"),
        InstanceStatus("new", "http://new", "starting"),
    ]
    answer = await client.get("/")
    page = answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "1.2.3" in page
    for link in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{link}"' in page
    rows = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr>.*</tr>", page)[-3:]]
    assert [[cell for cell in row.split("|") if cell] for row in rows] == [
        ["prod", "https://agentos.example.com", "ok", "12 s ago", "12 s ago", "none"],
        ["staging", "https://staging:7777/", "unreachable", "2 min ago", "never", "connection refused"],
        ["new", "http://new", "starting", "never", "never", "none"],
    ]
    assert 'datetime="1970-01-01T00:16:28+00:00"' in page


async def test_the_page_loads_nothing_and_may_not(client):
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*)</style>", answer.text, re.DOTALL)[1]
    assert "url(" not in style
    assert f"'sha256-{landing.STYLE_HASH}'" in policy
    assert style == landing.STYLE
    assert not re.search(r"<(script|link|img|iframe)|\bsrc=|style=|https?://", answer.text)


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


async def test_hostile_text_is_escaped(client, site):
    site.statuses = [InstanceStatus(HOSTILE, HOSTILE, HOSTILE, 1e300, float("nan"), f"{HOSTILE}\ud800$rows{{}}")]
    site.version = HOSTILE
    answer = await client.get("/")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert answer.text.count("&lt;script&gt;") == 5
    assert "$rows{}" in answer.text
    assert 'class="state "' in answer.text


async def test_credentials_never_show(client, site):
    url = "postgresql+psycopg://reader:s3cret@db/agno?password=s3cret"
    site.statuses = [InstanceStatus("db", url, "unreachable", error="GET http://me:s3cret@h/ failed")]
    page = (await client.get("/")).text
    assert "s3cret" not in page
    assert "reader" not in page
    assert "GET http://h/ failed" in page


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:1/p", "https://h:1/p"),
        ("https://user:pw@h/p", "https://h/p"),
        ("https://user:p/w@h/p", "https://h/p"),
        ("https://user:p?w#@h", "https://h"),
        ("https://u:p@w@h", "https://h"),
        ("https://h/?token=x#y", "https://h/"),
        ("user:pw@h", "h"),
        ("sqlite:////var/lib/agno.db", "sqlite:////var/lib/agno.db"),
        ("http://[::1]:7777", "http://[::1]:7777"),
        ("", ""),
    ],
)
def test_shown_url(url, shown):
    assert shown_url(url) == shown


async def test_no_instances(client):
    assert "None yet." in (await client.get("/")).text


# The server


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nhost : y\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: magic\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nx: " + b"a" * web.MAX_HEAD,
        b"GET /" + b"a" * web.MAX_HEAD,
        b"GET /metrics HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 5000,
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_malformed_requests_are_answered_with_an_error(server, client, site, sent):
    answer = await talk(server, sent)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert site.scrapes == 0
    assert (await client.get("/-/healthy")).status_code == 200


async def test_a_body_is_not_read(server):
    head = b"GET /metrics HTTP/1.1\r\nhost: x\r\n"
    for body in (b"content-length: 1000000000\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\nfffffff\r\nabc"):
        answer = await talk(server, head + body)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\ntext\n")


async def test_websockets_are_no_special_case(server):
    head = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
    assert (await talk(server, head, end=True)).startswith(b"HTTP/1.1 200 ")


async def test_connections_are_kept_for_the_next_scrape(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for _ in range(3):
        writer.write(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await reader.readuntil(b"Healthy.\n")
        assert b"connection: close" not in answer
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "sent", [b"", b"GET /metrics HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1"]
)
async def test_a_slow_client_is_cut(site, monkeypatch, sent):
    monkeypatch.setattr(web, "MAX_REQUEST_SECONDS", 0.2)
    async with serving(site) as server:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            await talk(server, sent)
        assert time.monotonic() - began < 5


async def test_a_client_that_does_not_read_is_cut(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_REQUEST_SECONDS", 0.2)
    big = bytes(20_000_000)
    site.output = Rendered(big, big, big, big)
    async with serving(site) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: server._server.server_state.connections)
        await until(lambda: not server._server.server_state.connections)
        writer.transport.abort()


HEALTHY = b"GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def test_one_connection_too_many_takes_the_place_of_the_one_that_is_idle_longest(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 3)
    async with serving(site) as server:
        connections = server._server.server_state.connections
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await until(lambda: len(connections) == 2)
        assert (await talk(server, HEALTHY)).startswith(b"HTTP/1.1 200 ")
        assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
        idle[1][1].write(HEALTHY)
        assert (await idle[1][0].read()).startswith(b"HTTP/1.1 200 ")
        for _, writer in idle:
            writer.close()


async def test_a_thousand_idle_connections_keep_no_scrape_out(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 16)
    async with serving(site) as server:
        connections = server._server.server_state.connections
        idle = []
        for _ in range(1000):
            idle.append(await asyncio.open_connection("127.0.0.1", server.port))
            assert len(connections) <= 16
        assert (await talk(server, HEALTHY)).startswith(b"HTTP/1.1 200 ")
        for _, writer in idle:
            writer.transport.abort()


async def test_while_all_connections_are_busy_one_more_gets_a_503(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 3)
    big = bytes(20_000_000)
    site.output = Rendered(big, big, big, big)
    async with serving(site) as server:
        connections = server._server.server_state.connections
        busy = [await asyncio.open_connection("127.0.0.1", server.port, limit=1024) for _ in range(2)]
        for _, writer in busy:
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: len(connections) == 2 and all(not connection.is_idle for connection in connections))
        assert (await talk(server, HEALTHY)).startswith(b"HTTP/1.1 503 ")
        for _, writer in busy:
            writer.transport.abort()
        await until(lambda: not connections)
        assert (await talk(server, HEALTHY)).startswith(b"HTTP/1.1 200 ")


async def test_stop_is_quick_though_clients_hang_on(site):
    big = bytes(20_000_000)
    site.output = Rendered(big, big, big, big)
    server = Server(make_app(site), [bind("127.0.0.1", 0)])
    await server.start()
    idle = await asyncio.open_connection("127.0.0.1", server.port)
    stuck = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    stuck[1].write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.sleep(0.1)
    port, began = server.port, time.monotonic()
    await server.stop()
    assert time.monotonic() - began < web.STOP_SECONDS + 0.5
    for _, writer in (idle, stuck):
        writer.transport.abort()
    bind("127.0.0.1", port).close()


async def test_stop_before_start_frees_the_port(site):
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await Server(make_app(site), [listener]).stop()
    bind("127.0.0.1", port).close()


async def test_start_raises_what_keeps_it_from_starting(site):
    listener = bind("127.0.0.1", 0)
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await Server(make_app(site), [listener]).start()


async def test_signals_stay_with_the_daemon(site):
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    async with serving(site):
        assert {one: signal.getsignal(one) for one in before} == before


async def test_nothing_is_logged(client, server, caplog):
    caplog.set_level(logging.DEBUG)
    await client.get("/metrics")
    await talk(server, b"nonsense\r\n\r\n")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_a_broken_site_answers_500(client, site, monkeypatch, caplog):
    monkeypatch.setattr(site, "ready", lambda: 1 / 0)
    answer = await client.get("/-/ready")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError" in caplog.text


# Listening


def test_a_taken_port():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: the address is already in use; is another exporter running?"
    )


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 65536, "cannot listen on 127.0.0.1:65536: the port must lie between 0 and 65535"),
        ("127.0.0.1", -1, "cannot listen on 127.0.0.1:-1: the port must lie between 0 and 65535"),
        ("192.0.2.1", 9777, "cannot listen on 192.0.2.1:9777: no interface of this machine has that address"),
        ("x..y", 1, "cannot listen on x..y:1: 'x..y' is neither an address nor a known host"),
        ("no such host", 1, "cannot listen on no such host:1: 'no such host' is neither an address nor a known host"),
        ("1:2:3", 1, "cannot listen on [1:2:3]:1: '1:2:3' is neither an address nor a known host"),
    ],
)
def test_addresses_that_cannot_be_had(host, port, message):
    with pytest.raises(ListenError) as caught:
        bind(host, port)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "cannot listen on 127.0.0.1:80: permission denied; ports below 1024 need a privilege"),
        (errno.EMFILE, "cannot listen on 127.0.0.1:80: Too many open files"),
    ],
)
def test_errors_of_the_system(monkeypatch, number, message):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "Too many open files")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ListenError) as caught:
        bind("127.0.0.1", 80)
    assert str(caught.value) == message


@pytest.mark.parametrize("every", ["", "::"])
def test_an_empty_host_and_that_of_ipv6_are_every_interface(every):
    with bind(every, 0) as listener:
        port = listener.getsockname()[1]
        hosts = ["127.0.0.1", *(["::1"] if listener.family == socket.AF_INET6 else [])]
        for host in hosts:
            socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(ListenError):
            bind(every, port)


def test_without_ipv6_an_empty_host_is_ipv4(monkeypatch):
    real = socket.create_server

    def create(address: tuple[str, int], *, family: int, dualstack_ipv6: bool) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
        return real(address, family=family, dualstack_ipv6=dualstack_ipv6)

    monkeypatch.setattr(socket, "create_server", create)
    with bind("", 0) as listener:
        assert listener.family == socket.AF_INET
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with bind("", 0) as listener:
        assert listener.family == socket.AF_INET


def test_a_name_is_ipv4_first():
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (172800, "2 d ago")],
)
def test_ago(seconds, text):
    assert landing._ago(seconds) == text
