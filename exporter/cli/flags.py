"""The flags of the daemon, as cyclopts reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from exporter.config import FLAGS, VARIABLES, AgentOS, Config
from exporter.core.errors import ConfigError


def _flag(spelling: str) -> Parameter:
    flag = next(flag for flag in FLAGS if flag.spelling == spelling)
    default = f"; default: {flag.default}" if flag.default else ""
    return Parameter(name=spelling, metavar=flag.metavar, help=f"{flag.help}{default} (environment: {flag.env})")


VARIABLES_HELP = "Environment only:\n" + "\n".join(f"  {name}\n      {text}" for name, text in VARIABLES)
"""Settings without a flag, for the end of the help."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DaemonFlags:
    """The flags of `run` and `check-config`, named as the keys of `exporter.config.FLAGS`."""

    config_file: Annotated[str | None, _flag("--config.file")] = None
    agentos_url: Annotated[str | None, _flag("--agentos.url")] = None
    state: Annotated[str | None, _flag("--state")] = None
    listen_address: Annotated[list[str] | None, _flag("--web.listen-address")] = None
    web_systemd_socket: Annotated[bool | None, _flag("--web.systemd-socket")] = None
    web_config_file: Annotated[str | None, _flag("--web.config.file")] = None
    web_telemetry_path: Annotated[str | None, _flag("--web.telemetry-path")] = None
    web_external_url: Annotated[str | None, _flag("--web.external-url")] = None
    web_route_prefix: Annotated[str | None, _flag("--web.route-prefix")] = None
    web_enable_lifecycle: Annotated[bool | None, _flag("--web.enable-lifecycle")] = None
    shard_index: Annotated[str | None, _flag("--shard.index")] = None
    shard_count: Annotated[str | None, _flag("--shard.count")] = None
    log_level: Annotated[str | None, _flag("--log.level")] = None
    log_format: Annotated[str | None, _flag("--log.format")] = None


def given(flags: DaemonFlags) -> dict[str, Any]:
    """The flags in the form of `exporter.config.load`: None for a flag that is not given."""
    return asdict(flags)


def chosen(config: Config, name: str | None) -> AgentOS:
    """The AgentOS of `--agentos`; the only one of the configuration where none is named. Raises ConfigError."""
    chosen = [agentos for agentos in config.agentos if name in {None, agentos.name}]
    if len(chosen) != 1:
        names = ", ".join(agentos.name for agentos in config.agentos) or "none"
        raise ConfigError([f"--agentos: name one AgentOS of the configuration: {names}"])
    return chosen[0]
