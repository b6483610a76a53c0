"""The commands of `traces`, as the command line calls them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

from cyclopts import App, Parameter

from exporter.cli.traces.arguments import ID_PREFIX, ListOptions, SessionOptions, ShowOptions
from exporter.cli.traces.commands import list_sessions, list_traces, run, show_trace

app = App(
    name="traces",
    help="Look at the traces of an AgentOS.",
    help_epilogue="Without a command: --trace-id ID is show, --stats is sessions, anything else is list.",
)


@app.command(name="list")
def print_traces(options: ListOptions | None = None) -> int:
    """Recent traces."""
    return run(list_traces, options or ListOptions(), os.environ)


@app.command(name="show")
def print_trace(
    trace_id: Annotated[
        str, Parameter(name="TRACE_ID", help=f"the id, or at least its first {ID_PREFIX} digits", show_default=False)
    ],
    /,
    options: ShowOptions | None = None,
) -> int:
    """One trace, span by span."""
    return run(show_trace, replace(options or ShowOptions(), trace_id=trace_id), os.environ)


@app.command(name="sessions")
def print_sessions(options: SessionOptions | None = None) -> int:
    """Sessions and what they did."""
    return run(list_sessions, options or SessionOptions(), os.environ)
