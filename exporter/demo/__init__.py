"""The demonstration: a real AgentOS on a scripted model, with realistic traffic, and the exporter on it.

    this process:  run -> stage: the exporter's daemon, the numbers on the terminal
    leash.py       ├── system: AgentOS, its agents (scripted), its users (traffic) and what waits (waiting)
    leash.py       └── prometheus, where the machine has one

Each child hangs on a leash: a pipe that ends with this process, however this process ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from exporter.config import DEFAULT_PORT, Address, parse_address, read_by

__all__ = ["Options", "run"]

_PORT_MAX = 65_535
_LISTEN = Address("127.0.0.1", DEFAULT_PORT)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _PORT_MAX:
        raise ValueError(f"'{text}' is not a port: a number between 1 and {_PORT_MAX}")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"'{text}' is not a number above 0")
    return number


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `agentos-exporter demo`. `rate` is in runs per second, `duration` in seconds."""

    listen_address: Annotated[
        Address,
        Parameter(
            name="--web.listen-address",
            metavar="ADDRESS",
            help="host and port of the exporter",
            converter=read_by(parse_address),
            accepts_keys=False,
            show_default=str,
        ),
    ] = _LISTEN
    agentos_port: Annotated[
        int | None,
        Parameter(metavar="PORT", help="port of the AgentOS (default: 7777, or a free one)", converter=read_by(_port)),
    ] = None
    rate: Annotated[
        float, Parameter(metavar="RUNS", help="runs per second on average", converter=read_by(_positive))
    ] = 1.0
    duration: Annotated[
        float | None,
        Parameter(
            metavar="SECONDS",
            help="stop after so many seconds of it (default: at Ctrl-C)",
            converter=read_by(_positive),
        ),
    ] = None
    no_prometheus: Annotated[
        bool, Parameter(help="do not start Prometheus, although it is installed", show_default=False)
    ] = False
    keep: Annotated[bool, Parameter(help="keep the folder with the databases and the logs", show_default=False)] = False
    log_level: Annotated[
        Literal["debug", "info", "warn", "error"], Parameter(name="--log.level", help="of the exporter's own log")
    ] = "warn"


def run(options: Options) -> int:
    """Run the demonstration until a signal, or for `--duration`; return the exit code."""
    try:
        from exporter.demo.stage import perform  # noqa: PLC0415 - what it imports is heavy

        return perform(options)
    except KeyboardInterrupt:  # before there was anything to stop
        return 0
