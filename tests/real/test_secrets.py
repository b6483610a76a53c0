"""A secret in any place that takes one, right or wrong: no command, log line, page or file ever repeats it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from exporter import config
from exporter.cli import main as cli
from exporter.core.errors import ConfigError
from tests.harness.commands import own_logging, without_settings
from tests.harness.inprocess import Exporter

SECRET = "S3CRET-q9!x/7@z"
"""Of characters that break URLs, where nobody escaped them."""
QUOTED = quote(SECRET, safe="")
PLAIN = "S3CRETq9x7zAbCdEf0123"
"""Of characters that are allowed everywhere."""
TRACES = (SECRET, QUOTED, PLAIN, "S3CRET")


@dataclass(frozen=True)
class Place:
    """Where the secret is put: `keys` of the AgentOS in the configuration, `env` and `files` beside it."""

    keys: Mapping[str, object] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    """of a configuration that is no YAML as such"""


def _proxies() -> Iterator[tuple[str, Place]]:
    """Proxy variables with passwords, in forms that work and in forms that do not."""
    urls = {
        "plain": f"http://me:{PLAIN}@127.0.0.1:9",
        "quoted": f"http://me:{QUOTED}@127.0.0.1:9",
        "raw": f"http://me:{SECRET}@127.0.0.1:9",
        "port": f"http://me:{PLAIN}@127.0.0.1:{PLAIN}",
        "ftp": f"ftp://me:{PLAIN}@127.0.0.1:9",
        "socks": f"socks5h://me:{PLAIN}@127.0.0.1:9",
    }
    for name in ("HTTP_PROXY", "all_proxy"):
        for form, url in urls.items():
            yield f"{name}-{form}", Place(env={name: url})
    for form, url in urls.items():
        yield f"proxy_url-{form}", Place({"proxy_url": url})
    yield "NO_PROXY", Place(env={"NO_PROXY": f"{PLAIN}, [{SECRET}"})


def _databases() -> Iterator[tuple[str, Place]]:
    for scheme in ("postgresql+psycopg", "mysql+pymysql", "postgres", "mongodb"):
        for form, secret in (("raw", SECRET), ("quoted", QUOTED), ("plain", PLAIN)):
            yield f"{scheme}-{form}", Place({"url": None, "database": f"{scheme}://me:{secret}@127.0.0.1:9/agno"})
    whole = "postgresql+psycopg://me@127.0.0.1:9/agno"
    yield "password_file", Place({"url": None, "database": whole, "password_file": "pw"}, files={"pw": SECRET})
    yield (
        "password_file-lines",
        Place({"url": None, "database": whole, "password_file": "pw"}, files={"pw": "a\n" + SECRET}),
    )
    yield "password_file-itself", Place({"url": None, "database": whole, "password_file": PLAIN})
    yield "password_env", Place({"url": None, "database": whole, "password_env": "PW"}, env={"PW": SECRET})
    yield "password_env-itself", Place({"url": None, "database": whole, "password_env": PLAIN + "!"})


PLACES = {
    **dict(_proxies()),
    **dict(_databases()),
    "token_file": Place({"token_file": "token"}, files={"token": PLAIN}),
    "token_file-odd": Place({"token_file": "token"}, files={"token": f"Bearer {SECRET}"}),
    "token_file-lines": Place({"token_file": "token"}, files={"token": f"{PLAIN}\n{SECRET}"}),
    "token_file-itself": Place({"token_file": PLAIN}),
    "token_env": Place({"token_env": "TOKEN"}, env={"TOKEN": SECRET}),
    "token_env-odd": Place({"token_env": "TOKEN"}, env={"TOKEN": f"{SECRET}\u00e9"}),
    "token_env-itself": Place({"token_env": SECRET}),
    "token-no-key": Place({"token": SECRET}),
    "url-password": Place({"url": f"http://me:{PLAIN}@127.0.0.1:9"}),
    "url-raw": Place({"url": f"http://me:{SECRET}@127.0.0.1:9"}),
    "url-query": Place({"url": f"http://127.0.0.1:9/?token={PLAIN}"}),
    "url-fragment": Place({"url": f"http://127.0.0.1:9/#{PLAIN}"}),
    "url-port": Place({"url": f"http://127.0.0.1:{PLAIN}"}),
    "tls-key": Place(
        {"url": "https://127.0.0.1:9", "tls": {"ca_file": "pem"}}, files={"pem": f"-----BEGIN\n{SECRET}\n"}
    ),
    "yaml": Place(text=f"agentos: [{{name: a, url: http://x, token_env: {SECRET}\n"),
    "yaml-anchor": Place(text=f"agentos: *{PLAIN}\n"),
    "yaml-tag": Place(text=f"agentos: !{PLAIN} x\n"),
    "variable-of-the-exporter": Place(
        env={"AGENTOS_EXPORTER_TOKEN": SECRET, "AGENTOS_EXPORTER_AGENTOS_URL": "http://127.0.0.1:9"}
    ),
    "file-of-the-exporter": Place(
        env={"AGENTOS_EXPORTER_TOKEN_FILE": PLAIN, "AGENTOS_EXPORTER_AGENTOS_URL": "http://127.0.0.1:9"}
    ),
    "state-url": Place(
        text=f"state: postgresql://me:{SECRET}@h/db\nagentos: [{{name: a, url: 'http://127.0.0.1:9'}}]\n"
    ),
}


class _Echo(BaseHTTPRequestHandler):
    """Answers whatever comes with an error that repeats all headers, as debug pages do."""

    status = 401

    def do_GET(self) -> None:
        said = json.dumps({"detail": f"{self.headers}"}).encode()
        self.send_response(self.status)
        self.send_header("WWW-Authenticate", f"Bearer realm={self.headers.get('Authorization')}")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_GET  # noqa: N815 - the name is of http.server

    def log_message(self, *_: object) -> None:
        """Keep the output of tests clean."""


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def everything(folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """All that three commands say, the daemon's log and pages, and its state file."""
    without_settings(monkeypatch)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    for name, content in place.files.items():
        (folder / name).write_text(content)
    keys = {"name": "a", "url": "http://agentos.invalid:9", **place.keys}
    instance = {name: value for name, value in keys.items() if value is not None}
    (folder / "exporter.yml").write_text(place.text or json.dumps({"agentos": [instance], "state": "state.db"}))
    given = [] if "AGENTOS_EXPORTER_AGENTOS_URL" in place.env else ["--config.file", "exporter.yml"]
    with own_logging(monkeypatch):
        cli.main(["check-config", *given])
        cli.main(["traces", "list", "--timeout", "2s", *given])
        said = capfd.readouterr()
        try:
            loaded = config.load({"config_file": given[1] if given else None}, dict(place.env))
        except ConfigError as error:
            return f"{said.out}{said.err}{error}"
        daemon = asyncio.run(lived(loaded, folder / "state.db"))
    return f"{said.out}{said.err}{daemon}{(folder / 'state.db').read_bytes()!r}"


async def lived(loaded: config.Config, state: Path) -> str:
    """What a daemon says in its life: until it has polled, with its log and pages."""
    async with Exporter({agentos.name: agentos for agentos in loaded.agentos}, state) as exporter:
        await exporter.until(lambda shown: shown("agentos_exporter_polls_total") >= 1)
        pages = [await exporter.get(path) for path in ("/", "/metrics")]
    return "\n".join([exporter.log, *pages])


@pytest.mark.parametrize("name", PLACES)
def test_no_place_gives_a_secret_away(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = everything(tmp_path, PLACES[name], monkeypatch, capfd)
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if any(secret in line for secret in TRACES)] == []


@pytest.mark.parametrize("status", [401, 403, 400, 404, 500, 503])
def test_an_agentos_that_repeats_the_token_gives_nothing_away(
    status: int, echo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Echo, "status", status)
    said = everything(tmp_path, Place({"url": echo, "token_file": "token"}, files={"token": PLAIN}), monkeypatch, capfd)
    assert str(status) in said
    assert PLAIN not in said
    assert base64.b64encode(PLAIN.encode()).decode() not in said
