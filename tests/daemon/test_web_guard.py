"""The web server behind `--web.config.file`: TLS, certificates of clients, passwords, rate limit, files that change."""

import asyncio
import base64
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import bcrypt
import httpx
import pytest

from exporter.service.web import guard
from exporter.service.web import server as web
from exporter.service.web.app import make_app
from exporter.service.web.listen import bind
from exporter.service.web.live import LiveWebConfig
from exporter.service.web.server import Server
from tests.daemon.test_web import FakeSite, until
from tests.unit.test_web_config import TLS, tls

HASHED = bcrypt.hashpw(b"dave123", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users:\n  dave: {HASHED}\n"
VERIFIED = f"client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: {TLS}/ca.crt"


class Served:
    """A server with a file, and clients of it."""

    def __init__(self, server: Server, live: LiveWebConfig, file: Path, site: FakeSite) -> None:
        self.server, self.live, self.file, self.site = server, live, file, site

    async def get(
        self, path: str = "/metrics", context: ssl.SSLContext | None = None, **options: object
    ) -> httpx.Response:
        """One request on a connection of its own."""
        scheme = "http" if self.live.tls is None else "https"
        async with httpx.AsyncClient(verify=context or trusting(), trust_env=False, timeout=10) as client:
            return await client.get(f"{scheme}://127.0.0.1:{self.server.port}{path}", **options)


def trusting(client: str = "") -> ssl.SSLContext:
    """A client's context, with its certificate if it has one."""
    context = ssl.create_default_context(cafile=TLS / "ca.crt")
    if client:
        context.load_cert_chain(TLS / f"{client}.crt", TLS / f"{client}.key")
    return context


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(text: str, clock: Callable[[], float] | None = None) -> Served:
            file = tmp_path / "web.yml"
            file.write_text(text)
            live, site = LiveWebConfig(file), FakeSite()
            app = make_app(site, live)
            if clock is not None:
                app._bucket._clock = clock
            server = Server(app, [bind("127.0.0.1", 0)], live)
            await server.start()
            stack.push_async_callback(server.stop)
            return Served(server, live, file, site)

        yield start


# TLS


async def test_tls(serve):
    served = await serve(tls())
    answer = await served.get()
    assert (answer.status_code, answer.text) == (200, "text\n")
    assert served.site.scrapes == 1


async def test_a_connection_is_kept_for_the_next_scrape(serve):
    served = await serve(tls())
    async with httpx.AsyncClient(verify=trusting(), trust_env=False) as client:
        for _ in range(3):
            assert (await client.get(f"https://127.0.0.1:{served.server.port}/metrics")).status_code == 200
        assert len(served.server._server.server_state.connections) == 1


async def test_http_to_https_is_no_answer(serve):
    served = await serve(tls())
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(f"http://127.0.0.1:{served.server.port}/metrics")
    await until(lambda: not served.server._server.server_state.connections)
    assert (await served.get()).status_code == 200


async def test_https_to_http_is_no_answer(serve):
    served = await serve("")
    async with httpx.AsyncClient(verify=trusting(), trust_env=False) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(f"https://127.0.0.1:{served.server.port}/metrics")


@pytest.mark.parametrize(
    ("ciphers", "chosen"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("ECDHE-RSA-AES256-SHA", None),
    ],
)
async def test_cipher_suites(serve, ciphers, chosen):
    some = "cipher_suites:\n- TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n- TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
    served = await serve(tls(f"{some}\nmax_version: TLS12"))
    context = trusting()
    context.set_ciphers(ciphers)
    if chosen is None:
        with pytest.raises(httpx.ConnectError):
            await served.get(context=context)
        return
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port, ssl=context, server_hostname="localhost")
    assert writer.get_extra_info("cipher")[0] == chosen
    writer.close()


@pytest.mark.parametrize(("curve", "works"), [("secp521r1", True), ("secp384r1", False)])
async def test_curves(serve, curve, works):
    served = await serve(tls("min_version: TLS13\ncurve_preferences: [CurveP521]"))
    context = trusting()
    context.set_ecdh_curve(curve)
    with contextlib.nullcontext() if works else pytest.raises(httpx.HTTPError):
        assert (await served.get(context=context)).status_code == 200


@pytest.mark.parametrize(
    ("more", "client", "works"),
    [
        (VERIFIED, "client", True),
        (VERIFIED, "", False),
        (VERIFIED, "stranger", False),
        (VERIFIED.replace("RequireAnd", "").replace("ClientCert", "ClientCertIfGiven"), "", True),
        (VERIFIED.replace("RequireAnd", "").replace("ClientCert", "ClientCertIfGiven"), "stranger", False),
        (f"{VERIFIED}\nclient_allowed_sans: [other, prometheus]", "client", True),
        (f"{VERIFIED}\nclient_allowed_sans: [it@example.com]", "client", True),
        (f"{VERIFIED}\nclient_allowed_sans: ['fd00::1']", "client", True),
        (f"{VERIFIED}\nclient_allowed_sans: ['spiffe://example.com/p']", "client", True),
        (f"{VERIFIED}\nclient_allowed_sans: [other]", "client", False),
    ],
)
async def test_certificates_of_clients(serve, more, client, works):
    served = await serve(tls(more))
    with contextlib.nullcontext() if works else pytest.raises(httpx.HTTPError):
        assert (await served.get(context=trusting(client))).status_code == 200
    assert served.site.scrapes == works


async def test_who_never_shakes_hands_is_cut(serve, monkeypatch):
    monkeypatch.setattr(web, "HANDSHAKE_SECONDS", 0.1)
    served = await serve(tls())
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await until(lambda: not served.server._server.server_state.connections)


async def test_who_never_shakes_hands_keeps_nobody_out(serve, monkeypatch):
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 5)
    served = await serve(tls())
    writers = [(await asyncio.open_connection("127.0.0.1", served.server.port))[1] for _ in range(20)]
    assert (await served.get()).status_code == 200
    for writer in writers:
        writer.close()


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(serve):
    served = await serve(tls())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
    client.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    writer.write(outgoing.read())  # the client's last flight, and its request
    answer = b""
    async with asyncio.timeout(5):
        while b"text\n" not in answer:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while record := client.read(65536):
                    answer += record
    assert answer.startswith(b"HTTP/1.1 200 OK")
    writer.close()


# Files that change


async def test_certificates_are_read_for_each_connection(serve, tmp_path):
    for name in ("server.crt", "server.key", "client.crt", "client.key"):
        shutil.copy(TLS / name, tmp_path)
    served = await serve("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    async with httpx.AsyncClient(verify=trusting(), trust_env=False) as kept:
        url = f"https://127.0.0.1:{served.server.port}/metrics"
        assert (await kept.get(url)).status_code == 200
        (tmp_path / "client.crt").replace(tmp_path / "server.crt")  # half of a swap: it does not fit the key
        assert (await served.get()).status_code == 200
        assert served.live.problems
        (tmp_path / "client.key").replace(tmp_path / "server.key")
        with pytest.raises(httpx.ConnectError, match=r"127\.0\.0\.1"):  # the new one is for another host
            await served.get()
        assert not served.live.problems
        assert (await kept.get(url)).status_code == 200


async def test_a_broken_file_changes_nothing(serve):
    served = await serve(USERS)
    served.file.write_text("basic_auth_users: {dave: none}\n")
    assert (await served.get()).status_code == 401
    assert (await served.get(auth=("dave", "dave123"))).status_code == 200
    assert served.live.problems
    served.file.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    answer = await served.get()
    assert (answer.status_code, answer.headers["x-frame-options"]) == (200, "deny")
    assert not served.live.problems


async def test_tls_is_not_turned_off_by_an_edit(serve):
    served = await serve(tls())
    served.file.write_text("")
    assert (await served.get()).status_code == 200
    assert served.live.problems


# Passwords


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (None, 401),
        (("dave", "dave123"), 200),
        (("dave", "bad"), 401),
        (("dave", ""), 401),
        (("nonexistent", "dave123"), 401),
        (("", ""), 401),
        (("dave", "dave123" + "x" * 100), 401),
        (("dave", "dave\0123"), 401),
    ],
)
async def test_passwords(serve, auth, status):
    served = await serve(USERS)
    for path in ("/metrics", "/-/healthy", "/", "/nowhere"):
        answer = await served.get(path, auth=auth)
        assert answer.status_code == (404 if (path, status) == ("/nowhere", 200) else status)
        assert (answer.headers.get("www-authenticate") == "Basic") == (status == 401)
    assert served.site.scrapes == (status == 200)


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !",
        "Bearer x",
        "Basic ZGF2ZQ==",
        "Basic " + "A" * 10_000,
        "Basic /w==",
    ],
)
async def test_headers_that_name_nobody(serve, header):
    served = await serve(USERS)
    assert (await served.get(headers={"authorization": header})).status_code == 401


async def test_passwords_are_compared_once(serve, monkeypatch):
    compared: list[str] = []

    def matches(password: bytes, hashed: str) -> bool:
        compared.append(hashed)
        return bcrypt.checkpw(password, hashed.encode())

    monkeypatch.setattr(guard, "_matches", matches)
    served = await serve(USERS)
    await asyncio.gather(*(served.get(auth=("dave", "dave123")) for _ in range(5)))
    assert compared == [HASHED]
    monkeypatch.setattr(guard, "_NOBODY", HASHED)  # the real one takes its time
    for _ in range(2):
        await served.get(auth=("dave", "wrong"))
        await served.get(auth=("nobody", "dave123"))
    assert len(compared) == 3  # who is unknown takes as long as who is wrong
    served.file.write_text(USERS.replace("dave:", "carol:"))
    assert (await served.get(auth=("dave", "dave123"))).status_code == 401


async def test_what_is_kept_of_passwords_is_bounded(serve, monkeypatch):
    monkeypatch.setattr(guard, "_matches", lambda _password, _hashed: False)
    served = await serve(USERS)
    passwords = served.server._server.config.app._passwords
    for number in range(250):
        assert not await passwords.allow(
            served.live.config, "Basic " + base64.b64encode(f"dave:{number}".encode()).decode()
        )
    assert len(passwords._kept) <= 100


async def test_known_passwords_do_not_wait_for_unknown_ones(serve, monkeypatch):
    served = await serve(USERS)
    assert (await served.get(auth=("dave", "dave123"))).status_code == 200
    async with served.server._server.config.app._passwords._lock:  # as while bcrypt runs
        assert (await served.get(auth=("dave", "dave123"))).status_code == 200


async def test_garbage_while_a_password_is_compared_is_refused_once(serve, caplog):
    served = await serve(tls() + USERS)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, ssl=trusting())
    async with served.server._server.config.app._passwords._lock:  # as while bcrypt runs
        wrong = base64.b64encode(b"dave:wrong")
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nauthorization: Basic %s\r\n\r\n" % wrong
        )
        await until(lambda: served.server._server.server_state.tasks)
        writer.write(b"no chunk\r\n" * 3)
        assert (await reader.read()).count(b"HTTP/1.1 ") == 1
    await until(lambda: not served.server._server.server_state.tasks)
    writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_garbage_after_an_answer_ends_the_connection(serve, caplog):
    served = await serve(tls() + USERS)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, ssl=trusting())
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.write(b"no chunk\r\n" * 3)
    assert (await reader.read()).count(b"HTTP/1.1 ") == 0
    writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_who_leaves_before_the_answer_takes_no_place(serve):
    served = await serve(tls() + USERS)
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port, ssl=trusting())
    async with served.server._server.config.app._passwords._lock:  # as while bcrypt runs
        wrong = base64.b64encode(b"dave:wrong")
        # A second request, which the server leaves unread until it has answered the first.
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nauthorization: Basic %s\r\n\r\nx" % wrong
        writer.write(request * 2)
        await until(lambda: served.server._server.server_state.tasks)
        (connection,) = served.server._server.server_state.connections
        await until(lambda: connection.flow.read_paused)
        writer.transport.abort()
        writer.close()
        # Its end is noticed, and nothing follows from it as long as reading pauses.
        await until(lambda: connection.transport._ssl_protocol._state is asyncio.sslproto.SSLProtocolState.FLUSHING)
    await until(lambda: not served.server._server.server_state.connections)


# Rate limit and headers


async def test_rate_limit(serve):
    now = [0.0]
    served = await serve("rate_limit: {interval: 1s, burst: 2}\n" + USERS, clock=lambda: now[0])
    auth = ("dave", "dave123")
    assert [(await served.get(auth=auth)).status_code for _ in range(3)] == [200, 200, 429]
    now[0] = 1.0
    assert [(await served.get(auth=auth)).status_code for _ in range(2)] == [200, 429]
    now[0] = 100.0
    assert [(await served.get(auth=auth)).status_code for _ in range(3)] == [200, 200, 429]


async def test_a_burst_of_0_lets_nobody_pass(serve):
    served = await serve('rate_limit:\n  interval: "1s"\n  burst: 0\n')
    assert (await served.get()).status_code == 429


async def test_headers_take_the_place_of_our_own(serve):
    policy = "default-src 'self'"
    served = await serve(f'http_server_config:\n  headers:\n    Content-Security-Policy: "{policy}"\n')
    answer = await served.get("/")
    assert answer.headers.get_list("content-security-policy") == [policy]
    assert answer.headers["x-content-type-options"] == "nosniff"
