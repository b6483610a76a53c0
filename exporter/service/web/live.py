"""The file of `--web.config.file` in force: read again as soon as it, or a file that it names, has changed."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from exporter.config.web import WebConfig, load_web
from exporter.core.errors import ConfigError

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of each file: when it was changed, in nanoseconds, its size and its inode; None where there is none."""


class LiveWebConfig:
    """What the web server runs with at this moment.

    Attributes:
        path: The file; None where there is none.
        config: What the file says, as far as it was in order.
        tls: The context for new connections; None for plain HTTP.
        failed: Whether the file, as it is now, was refused.

    """

    def __init__(self, path: Path | None) -> None:
        """Read the file; None stands for no file. Raises ConfigError."""
        self.path = path
        self.failed = False
        self.config = WebConfig() if path is None else load_web(path)
        self.tls: ssl.SSLContext | None = self._context(self.config)
        self._stamp = self._stamps(self.config)

    def refresh(self) -> None:
        """Read the files anew if one of them has changed. What is refused changes nothing, and is logged once."""
        if self.path is None or self._stamps(self.config) == self._stamp:
            return
        config = self.config
        try:
            config = load_web(self.path)
            tls = self._context(config)
            if (tls is None) != (self.tls is None):
                raise ConfigError(["tls_server_config: to turn TLS on or off needs a restart"])  # noqa: TRY301
            self.tls = tls
        except ConfigError as error:
            self.failed = True
            reason = "the file of --web.config.file is refused, what was read before holds"
            log.warning("web_config", reason=reason, problems=list(error.problems))
        else:
            self.failed, self.config = False, config
            log.info("web_config", reason="read anew")
        # Taken last: a file that is changed meanwhile is read once more than needed, never once too few.
        self._stamp = self._stamps(config)

    @staticmethod
    def _context(config: WebConfig) -> ssl.SSLContext | None:
        try:
            return None if config.tls is None else config.tls.context()
        except (OSError, ValueError):
            raise ConfigError(["tls_server_config: a file changed while it was read"]) from None

    def _stamps(self, config: WebConfig) -> Stamp:
        if self.path is None:
            return ()
        return tuple(map(_stamp, (self.path, *(config.tls.files if config.tls is not None else ()))))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
