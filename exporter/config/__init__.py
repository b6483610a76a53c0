"""The configuration of the daemon: `settings` has its classes, `loader` reads it from file, environment and flags."""

from __future__ import annotations

from exporter.config.loader import load
from exporter.config.secrets import Secret
from exporter.config.settings import (
    DEFAULT_PORT,
    DEFAULT_STATE,
    ENV_PREFIX,
    FLAGS,
    VARIABLES,
    Address,
    AgentOS,
    Check,
    Config,
    Database,
    Discovery,
    Push,
    SharedState,
    Tls,
    Web,
    changed_keys,
)
from exporter.config.state import parse_state
from exporter.config.values import format_duration, parse_address, parse_duration, parse_url, read_by

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_STATE",
    "ENV_PREFIX",
    "FLAGS",
    "VARIABLES",
    "Address",
    "AgentOS",
    "Check",
    "Config",
    "Database",
    "Discovery",
    "Push",
    "Secret",
    "SharedState",
    "Tls",
    "Web",
    "changed_keys",
    "format_duration",
    "load",
    "parse_address",
    "parse_duration",
    "parse_state",
    "parse_url",
    "read_by",
]
