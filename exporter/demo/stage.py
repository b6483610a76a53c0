"""The demo's first process: starts the others, runs the exporter, says where to look, and ends all of it in order."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.config import Address, AgentOS, Config, Web
from exporter.core import logs
from exporter.core.errors import ExporterError, ListenError
from exporter.counting.budgets import Budget, Period
from exporter.counting.dimensions import Dimension, Origin
from exporter.counting.users import UserLabels
from exporter.demo import Options, prometheus
from exporter.demo.children import Child, ChildFailedError, quiet_environment
from exporter.demo.traffic import TENANTS
from exporter.pricing.money import USD
from exporter.service.web.listen import bind

if TYPE_CHECKING:
    from exporter.service.daemon import Daemon

AGENTOS_PORT: Final = 7777
PROMETHEUS_PORT: Final = 9090
_READY: Final = 60.0
_LOOK: Final = 2.0
_LINE: Final = 15.0
_DAEMON_STOP: Final = 2.5
_CLEAR: Final = "\r\x1b[2K"
_PRICES: Final = """\
# The demo's price file. USD per million tokens; all other models have the prices of genai-prices.
# acme-guard-1b has no price on purpose: its tokens show up as agentos_llm_unpriced_tokens_total.
prices:
  - {model: acme-router-7b, input_mtok: 0.2, output_mtok: 0.6}
"""


def perform(options: Options) -> int:
    """Run the demo with these flags; return the exit code."""
    logs.configure(options.log_level)
    # Everything here is on this machine: a proxy could only be in the way.
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}
    try:
        return asyncio.run(_perform(options))
    except (ExporterError, ChildFailedError) as error:
        print(f"{_clear(sys.stderr.isatty())}agentos-exporter demo: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output is gone; the interpreter must not try to write more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _perform(options: Options) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    show = asyncio.create_task(_show(options, stopping))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({show, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if stopping.is_set():
        show.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await show
    return 0


async def _show(options: Options, stopping: asyncio.Event) -> None:
    """The whole demo, until cancelled. Raises what ends it early."""
    terminal = sys.stdout.isatty()
    listen: Address = options.listen_address
    if listen.port == 0:  # Prometheus has to be told before the exporter listens
        listen = Address(listen.host, _free(0))
    _probe("--web.listen-address", listen)
    agentos_port = _agentos_port(options.agentos_port)
    began = time.monotonic()
    if terminal:
        print("Starting…", end="", flush=True)
    async with contextlib.AsyncExitStack() as stack:
        scratch = stack.enter_context(_scratch(keep=options.keep))
        # The first context ends last: the exporter stops before AgentOS, and Prometheus before the exporter.
        system = await _system(options, agentos_port, scratch)
        children = [system]
        stack.push_async_callback(_stop_all, children)
        prometheus_port = await _prometheus(options, listen, scratch, children)
        # Agno takes seconds to import, here as in the child: both at once.
        await asyncio.gather(_ready(system), _imported("exporter.service.daemon"))
        daemon = await stack.enter_async_context(_running(_config(listen, agentos_port, scratch)))
        print(_clear(terminal) + _banner(options, daemon.port, agentos_port, prometheus_port, scratch), flush=True)
        if options.duration is not None:
            asyncio.get_running_loop().call_later(options.duration, stopping.set)
        ends = [asyncio.create_task(child.ended()) for child in children]
        telling = asyncio.create_task(_print_summary(daemon, began, terminal=terminal))
        work = [*ends, telling, asyncio.create_task(_drain(system))]
        try:
            done, _ = await asyncio.wait({*ends, telling}, return_when=asyncio.FIRST_COMPLETED)
            for child, end in zip(children, ends, strict=True):
                if end in done:
                    raise child.failure()
            await telling
        finally:
            for task in work:
                task.cancel()
            with contextlib.suppress(BrokenPipeError):
                print(_clear(terminal) + "Stopping.", flush=True)


# --- Parts -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _scratch(*, keep: bool) -> Iterator[Path]:
    """A folder for every database and log of the demo."""
    folder = Path(tempfile.mkdtemp(prefix="agentos-exporter-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"Kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _system(options: Options, port: int, scratch: Path) -> Child:
    command = (sys.executable, "-m", "exporter.demo.system", "--port", str(port), "--folder", str(scratch))
    environment = quiet_environment()
    # Found wherever this process found it, installed or not.
    places = (str(Path(__file__).parents[2]), environment.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return await Child.start(
        "AgentOS",
        (*command, "--rate", str(options.rate)),
        log=scratch / "agentos.log",
        scratch=None if options.keep else scratch,
        environment=environment,
    )


async def _ready(system: Child) -> None:
    """Wait until the AgentOS serves. Raises ChildFailedError."""
    try:
        async with asyncio.timeout(_READY):
            while (line := await system.line()) != "ready":
                if not line:
                    await system.ended()
                    raise system.failure()
    except TimeoutError:
        raise ChildFailedError(f"AgentOS did not answer within {_READY:.0f} seconds") from None


async def _imported(module: str) -> None:
    """Import a module in a daemon thread, so that a signal meanwhile is obeyed at once."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        # A failing import fails again where it is used; a closed loop means that the demo is over.
        with contextlib.suppress(Exception):
            try:
                importlib.import_module(module)
            finally:
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, daemon=True).start()
    await done.wait()


async def _drain(system: Child) -> None:
    """Read until the end: a full pipe would block the child."""
    while await system.line():
        pass


async def _prometheus(options: Options, listen: Address, scratch: Path, children: list[Child]) -> int | None:
    binary = None if options.no_prometheus else prometheus.installed()
    if binary is None:
        return None
    port = _free(PROMETHEUS_PORT)
    target = str(Address(_reachable(listen.host), listen.port))
    children.append(await prometheus.start(binary, port=port, target=target, scratch=scratch, keep=options.keep))
    return port


async def _stop_all(children: list[Child]) -> None:
    await asyncio.gather(*(child.stop() for child in children))


def _config(listen: Address, agentos_port: int, scratch: Path) -> Config:
    prices = _price_file(scratch)
    prices.write_text(_PRICES)
    return Config(
        agentos=(AgentOS("demo", f"http://127.0.0.1:{agentos_port}", enrich_runs=True),),
        prices=prices,
        budgets=(
            Budget(name="demo-team", period=Period.DAY, limit=2 * USD, agentos="demo"),
            Budget(name="each-tenant", period=Period.DAY, limit=USD // 10, per="tenant"),
        ),
        dimensions=(Dimension("tenant", Origin.USER, values=TENANTS),),
        user_labels=UserLabels.HASHED,
        poll_interval=2.0,
        sessions_interval=10.0,
        operations_interval=5.0,
        overlap=10.0,
        zero_hold=5.0,
        state=scratch / "state.db",
        web=Web((listen,)),
    )


def _price_file(scratch: Path) -> Path:
    return scratch / "prices.yml"


@contextlib.asynccontextmanager
async def _running(config: Config) -> AsyncIterator[Daemon]:
    from exporter.service.daemon import running  # noqa: PLC0415 - see _show

    stack = contextlib.AsyncExitStack()
    try:
        daemon = await stack.enter_async_context(running(config))
    except ListenError as error:
        raise _taken("--web.listen-address", error) from error
    try:
        yield daemon
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DAEMON_STOP):
                await stack.aclose()


# --- Ports -----------------------------------------------------------------------------------------------------------


def _probe(flag: str, address: Address) -> None:
    """Find out now, not after seconds of starting. Raises ListenError that names the flag."""
    try:
        bind(address.host, address.port).close()
    except ListenError as error:
        raise _taken(flag, error) from error


def _taken(flag: str, error: ListenError) -> ListenError:
    return ListenError(f"{flag}: {error}")


def _agentos_port(wanted: int | None) -> int:
    if wanted is None:
        return _free(AGENTOS_PORT)
    _probe("--agentos-port", Address("127.0.0.1", wanted))
    return wanted


def _free(preferred: int) -> int:
    """The preferred port of the loopback interface, or any free one."""
    for port in (preferred, 0):
        try:
            with bind("127.0.0.1", port) as listener:
                bound: int = listener.getsockname()[1]
                return bound
        except ListenError:
            continue
    raise ListenError("no port of 127.0.0.1 is free")


def _reachable(host: str) -> str:
    """Where a client on this machine finds what listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a look-up


# --- Words -----------------------------------------------------------------------------------------------------------

_QUERIES: Final = (
    ("dollars an hour by model", "3600 * sum by (model) (rate(agentos_llm_cost_usd_total[5m]))"),
    ("tokens a second by model", "sum by (model) (rate(agentos_llm_tokens_total[1m]))"),
    ("what failed lately", "sum by (agent, span_kind, error_type) (increase(agentos_error_spans_total[5m]))"),
    (
        "95th percentile of a run",
        "histogram_quantile(0.95, sum by (root, le) (rate(agentos_run_duration_seconds_bucket[5m])))",
    ),
    ("busiest tools", "topk(5, sum by (tool) (rate(agentos_tool_calls_total[5m])))"),
)


def _banner(options: Options, port: int, agentos_port: int, prometheus_port: int | None, scratch: Path) -> str:
    exporter = f"http://{Address(_reachable(options.listen_address.host), port)}"
    agentos = f"http://127.0.0.1:{agentos_port}"
    lines = [
        "A made-up company's agents are at work: no key, no network, nothing here is real but the software.",
        "",
        f"  exporter    {exporter}/metrics   (overview: {exporter}/)",
        f"  AgentOS     {agentos}   (API: {agentos}/docs)",
    ]
    if prometheus_port is not None:
        lines.append(f"  Prometheus  http://127.0.0.1:{prometheus_port}")
    if options.keep:
        lines.append(f"  files       {scratch}")
    explained = (
        "--model acme-router-7b --prompt 1000 --completion 100 --prices",
        shlex.quote(str(_price_file(scratch))),
    )
    lines += [
        "",
        "Try:",
        f"  curl -s {exporter}/metrics | grep agentos_llm_cost_usd_total",
        f"  curl -s {exporter}/metrics | grep agentos_budget",
        f"  curl -s {exporter}/metrics | grep -E 'agentos_(approvals|schedule|queue|eval|knowledge)_'",
        f"  {_program()} traces list --url {agentos}",
        f"  {_program()} prices explain --provider Acme {' '.join(explained)}",
        "",
        "Ask Prometheus:" if prometheus_port is not None else "Ask a Prometheus that scrapes it every 2 seconds:",
    ]
    lines += [f"  {query}   # {what}" for what, query in _QUERIES]
    lines += ["", "Ctrl-C stops everything and leaves nothing behind." if not options.keep else "Ctrl-C stops it."]
    return "\n".join((*lines, ""))


def _program() -> str:
    """How a visitor calls this program from here."""
    if shutil.which("agentos-exporter"):
        return "agentos-exporter"
    script = Path(sys.executable).with_name("agentos-exporter")
    if not script.exists():
        return f"{sys.executable} -m exporter"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


async def _print_summary(daemon: Daemon, began: float, *, terminal: bool) -> None:
    """Scrape the metrics as Prometheus would, and print a summary in one line."""
    printed_at = float("-inf")
    while True:
        await asyncio.sleep(_LOOK)
        rendered = daemon.site.rendered()
        if rendered is None:
            continue
        # A look counts as a scrape: so the first curl of a visitor shows values, not the 0 that new series begin with.
        daemon.site.scraped()
        now = time.monotonic()
        if not terminal and now - printed_at < _LINE:
            continue
        printed_at = now
        sums = _sums(rendered.text.decode())
        line = (
            f"{int(now - began) // 60:d}:{int(now - began) % 60:02d}"
            f"  {sums['agentos_runs_total']:,.0f} runs"
            f"  {sums['agentos_llm_calls_total']:,.0f} model calls"
            f"  {sums['agentos_llm_tokens_total']:,.0f} tokens"
            f"  ${sums['agentos_llm_cost_usd_total']:,.2f}"
            f"  {sums['agentos_llm_call_errors_total']:,.0f} model errors"
            f"  {sums['agentos_tool_call_errors_total']:,.0f} tool errors"
        )
        if terminal:
            # A wrapped line could not be cleared. The cursor stays at its start, so log lines overwrite it.
            print(f"{_CLEAR}{line[: shutil.get_terminal_size().columns - 1]}\r", end="", flush=True)
        else:
            print(line, flush=True)


_SUMMED: Final = (
    "agentos_runs_total",
    "agentos_llm_calls_total",
    "agentos_llm_tokens_total",
    "agentos_llm_cost_usd_total",
    "agentos_llm_call_errors_total",
    "agentos_tool_call_errors_total",
)


def _sums(text: str) -> dict[str, float]:
    """The sums over all series of the counters that the line shows."""
    sums = dict.fromkeys(_SUMMED, 0.0)
    for line in text.splitlines():
        name = line.partition("{")[0]
        if name in sums:
            sums[name] += float(line.rpartition(" ")[2])
    return sums


def _clear(terminal: bool) -> str:  # noqa: FBT001 - one question
    return _CLEAR if terminal else ""
