"""A scrape of 10,000 samples while a poll runs: the exporter's web server against `prometheus_client.make_asgi_app`.

Both are served by uvicorn from the event loop in which the polling goes on: for us the real source, intake and
publisher reading a real AgentOS over and over; for the other the same polling, its series held in prometheus_client's
own metrics. Scrapes ask for gzip, as Prometheus does. A third and a fourth time with TLS and a password, over one
connection, as Prometheus keeps it, and over a new one for each scrape; Debian's node_exporter with the same file beside
them, where it is installed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import http.client
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt

from benchmarks.measure import ROOT, child, quantile, report
from tests.harness.agentos import RunningAgentOS
from tests.harness.seed import seed
from tests.harness.web import TLS

_SAMPLES = 10_000
_USER = "prometheus:not-a-secret"
_NODE_EXPORTER = "/usr/bin/prometheus-node-exporter"


def main(*, quick: bool) -> None:
    """Serve both ways, print p50 and p99."""
    traces, scrapes = (300, 30) if quick else (2_000, 500)
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(hours=1))
        with RunningAgentOS(sys.executable, database) as agentos:
            ours = child(__name__, "ours", agentos.base_url, folder, scrapes)
            theirs = child(__name__, "theirs", agentos.base_url, folder, max(20, scrapes // 5))
            secured = child(__name__, "ours", agentos.base_url, folder, scrapes, "tls")
            fresh = child(__name__, "ours", agentos.base_url, folder, scrapes, "fresh")
        rows = {"exporter": ours, "make_asgi_app": theirs, "TLS, password": secured, "..., reconnected": fresh}
        if Path(_NODE_EXPORTER).exists():
            for name, way in (("node_exporter", "plain"), ("TLS, password", "tls"), ("..., reconnected", "fresh")):
                rows[f"{name} "] = child(__name__, "node", "", folder, scrapes, way)
    print(f"{'':>18} {'samples':>8} {'p50 ms':>9} {'p99 ms':>9}")
    for name, cost in rows.items():
        figures = cost.figures
        print(f"{name:>18} {figures['samples']:>8} {figures['p50']:>9.2f} {figures['p99']:>9.2f}")
    p50, p99 = (theirs.figures[name] / ours.figures[name] for name in ("p50", "p99"))
    print(f"p50: {p50:.0f} x faster (bound: 50); p99: {p99:.1f} x")
    print(f"TLS and a password: p99 {secured.figures['p99'] / ours.figures['p99']:.1f} x (bound: 3)")


@contextlib.asynccontextmanager
async def _polling(url: str, folder: str, samples: int, web: Path | None = None) -> AsyncIterator[object]:
    """A daemon's inside, polling without pause, with `samples` more samples on show."""
    from exporter.config import Address, AgentOS, Config, Web
    from exporter.core.logs import configure
    from exporter.service.daemon import running

    configure("error")
    config = Config(
        agentos=(AgentOS("bench", url),),
        poll_interval=0.5,
        overlap=1,
        zero_hold=0,
        initial_lookback=86400,
        state=Path(tempfile.mkdtemp(dir=folder)) / "state.db",
        web=Web((Address("127.0.0.1", 0),), web),
    )
    async with running(config) as daemon:
        _show(daemon.shared, samples)
        task = asyncio.create_task(_poll(daemon.pollers[0]))
        try:
            yield daemon
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _show(shared: Any, samples: int) -> None:
    """Put so many more samples on show."""
    from exporter.counting.delta import Delta
    from exporter.ledger.records import Changes

    delta = Delta("bench")
    for number in range(samples):
        delta.add("agentos_spans_total", ("bench", f"root{number % 400}", f"agent{number // 400}", "llm"))
    plan = shared.totals.plan(delta, show=True)
    shared.ledger.commit(Changes("bench", plan=plan))
    shared.totals.apply(plan)


async def _poll(poller: Any) -> None:
    """Read everything again and again: each poll forgets what it has read."""
    while True:
        for reader in poller.source.readers:
            reader.already_read._read.clear()  # noqa: SLF001
            if reader.position is not None:
                reader.position.cutoff = reader.position.floor
        await poller.poll()
        await asyncio.sleep(0)


async def _scrape(url: str, scrapes: int, *, fresh: bool = False) -> None:
    """Scrape from a process of its own, one scrape after the other, over one connection or a `fresh` one for each."""
    took, samples = await asyncio.to_thread(_scraped, url, scrapes, fresh=fresh)
    report(samples=samples, p50=1000 * quantile(took, 0.5), p99=1000 * quantile(took, 0.99))


def _scraped(url: str, scrapes: int, *, fresh: bool) -> tuple[list[float], int]:
    command = [sys.executable, "-m", __spec__.name, "scrape", url, str(scrapes), "fresh" if fresh else ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    took, samples = json.loads(done.stdout)
    return took, samples


def _scrape_alone(url: str, scrapes: int, *, fresh: bool) -> tuple[list[float], int]:
    """Seconds that each scrape took, and the samples of the last one."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=TLS / "ca.crt")
    headers = {"Accept-Encoding": "gzip", "Authorization": f"Basic {base64.b64encode(_USER.encode()).decode()}"}
    took: list[float] = []
    connection: http.client.HTTPConnection | None = None
    for _ in range(scrapes):
        if connection is None or fresh:
            place = parts.hostname or "", parts.port
            plain = parts.scheme == "http"
            connection = (
                http.client.HTTPConnection(*place) if plain else http.client.HTTPSConnection(*place, context=context)
            )
        began = time.perf_counter()
        connection.request("GET", parts.path, headers=headers)
        body = connection.getresponse().read()
        took.append(time.perf_counter() - began)
        if fresh:
            connection.close()
        time.sleep(0.02)
    return took, sum(1 for line in gzip.decompress(body).splitlines() if line and not line.startswith(b"#"))


async def _ours(url: str, folder: str, scrapes: int, way: str = "") -> None:
    web = _web_file(folder) if way else None
    async with _polling(url, folder, _SAMPLES, web) as daemon:
        metrics = f"http{'s' if way else ''}://127.0.0.1:{daemon.port}/metrics"  # type: ignore[attr-defined]
        await asyncio.sleep(2)
        await _scrape(metrics, scrapes, fresh=way == "fresh")


def _web_file(folder: str) -> Path:
    """A file for `--web.config.file`, with a hash of cost 10, as exporter-toolkit's documentation has it."""
    file = Path(folder, "web.yml")
    user, _, password = _USER.partition(":")
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
    tls = {"cert_file": str(TLS / "server.crt"), "key_file": str(TLS / "server.key")}
    file.write_text(json.dumps({"tls_server_config": tls, "basic_auth_users": {user: hashed}}))
    return file


async def _node(_url: str, folder: str, scrapes: int, way: str) -> None:
    """node_exporter, plain or with the same file; it polls nothing, and has about 1,000 samples."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [_NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"]
    if way != "plain":
        command.append(f"--web.config.file={_web_file(folder)}")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    await asyncio.sleep(1)
    scheme = "http" if way == "plain" else "https"
    try:
        await _scrape(f"{scheme}://127.0.0.1:{port}/metrics", scrapes, fresh=way == "fresh")
    finally:
        process.terminate()
        await process.wait()


async def _theirs(url: str, folder: str, scrapes: int) -> None:
    import prometheus_client
    import uvicorn

    registry = prometheus_client.CollectorRegistry()
    labels = ["agentos", "root", "agent", "span_kind"]
    counter = prometheus_client.Counter("bench_spans", "Spans", labels, registry=registry)
    for number in range(_SAMPLES // 2):  # each Counter shows two samples: _total and _created
        counter.labels("bench", f"root{number % 400}", f"agent{number // 400}", "llm").inc()
    server = uvicorn.Server(
        uvicorn.Config(prometheus_client.make_asgi_app(registry), host="127.0.0.1", port=0, log_level="error")
    )
    async with _polling(url, folder, 0):
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        await _scrape(f"http://127.0.0.1:{port}/metrics", scrapes)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    if sys.argv[1] == "scrape":
        print(json.dumps(_scrape_alone(sys.argv[2], int(sys.argv[3]), fresh=bool(sys.argv[4]))))
    else:
        run = {"ours": _ours, "theirs": _theirs, "node": _node}[sys.argv[1]]
        asyncio.run(run(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:]))
