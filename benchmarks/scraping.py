"""A scrape of 10,000 samples while a poll runs: the exporter's web server against `prometheus_client.make_asgi_app`.

Both are served by uvicorn from the event loop in which the polling goes on: for us the real source, intake and
publisher reading a real AgentOS over and over; for the other the same polling, its series held in prometheus_client's
own metrics. Scrapes ask for gzip, as Prometheus does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import child, quantile, report
from tests.harness.agentos import RunningAgentOS
from tests.harness.seed import seed

_SAMPLES = 10_000


def main(*, quick: bool) -> None:
    """Serve both ways, print p50 and p99."""
    traces, scrapes = (300, 30) if quick else (2_000, 200)
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, traces, spread=timedelta(hours=1))
        with RunningAgentOS(sys.executable, database) as agentos:
            ours = child(__name__, "ours", agentos.base_url, folder, scrapes)
            theirs = child(__name__, "theirs", agentos.base_url, folder, max(20, scrapes // 5))
    print(f"{'':>16} {'samples':>8} {'p50 ms':>9} {'p99 ms':>9}")
    for name, cost in (("exporter", ours), ("make_asgi_app", theirs)):
        figures = cost.figures
        print(f"{name:>16} {figures['samples']:>8} {figures['p50']:>9.2f} {figures['p99']:>9.2f}")
    p50, p99 = (theirs.figures[name] / ours.figures[name] for name in ("p50", "p99"))
    print(f"p50: {p50:.0f} x faster (bound: 50); p99: {p99:.1f} x")


@contextlib.asynccontextmanager
async def _polling(url: str, folder: str, samples: int) -> AsyncIterator[object]:
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
        web=Web((Address("127.0.0.1", 0),)),
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
            reader._read.clear()  # noqa: SLF001
            if reader.position is not None:
                reader.position.cutoff = reader.position.floor
        await poller.poll()
        await asyncio.sleep(0)


async def _scrape(url: str, scrapes: int) -> None:
    """Scrape from a process of its own, one scrape after the other over one connection."""
    took, samples = await asyncio.to_thread(_scrape_blocking, url, scrapes)
    report(samples=samples, p50=1000 * quantile(took, 0.5), p99=1000 * quantile(took, 0.99))


def _scrape_blocking(url: str, scrapes: int) -> tuple[list[float], int]:
    import subprocess

    script = (
        "import sys,time,http.client,json,gzip,urllib.parse as u\n"
        "p=u.urlsplit(sys.argv[1]);c=http.client.HTTPConnection(p.hostname,p.port,timeout=60);t=[];n=0\n"
        "for i in range(int(sys.argv[2])):\n"
        " b=time.perf_counter();c.request('GET',p.path,headers={'Accept-Encoding':'gzip'})\n"
        " r=c.getresponse();d=r.read()\n"
        " t.append(time.perf_counter()-b)\n"
        " n=sum(1 for l in gzip.decompress(d).splitlines() if l and l[:1]!=b'#');time.sleep(0.02)\n"
        "print(json.dumps([t,n]))\n"
    )
    import json

    done = subprocess.run([sys.executable, "-c", script, url, str(scrapes)], capture_output=True, text=True, check=True)
    took, samples = json.loads(done.stdout)
    return took, samples


async def _ours(url: str, folder: str, scrapes: int) -> None:
    async with _polling(url, folder, _SAMPLES) as daemon:
        metrics = f"http://127.0.0.1:{daemon.port}/metrics"  # type: ignore[attr-defined]
        await asyncio.sleep(2)
        await _scrape(metrics, scrapes)


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
    run = {"ours": _ours, "theirs": _theirs}[sys.argv[1]]
    asyncio.run(run(sys.argv[2], sys.argv[3], int(sys.argv[4])))
