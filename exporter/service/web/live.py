"""The file of `--web.config.file` in force: read again as soon as it, or a file that it names, has changed."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from exporter.config.files import FILE_BYTES, head
from exporter.config.web import WebConfig, load_web
from exporter.core.errors import ConfigError

log = structlog.get_logger(__name__)


class LiveWebConfig:
    """The web configuration in force.

    Attributes:
        path: The file; None where there is none.
        config: What the file says, as far as it was in order.
        tls: The context for new connections; None for plain HTTP.
        problems: Why the file, as it is now, is refused; empty while it is not.

    """

    def __init__(self, path: Path | None) -> None:
        """Read the file; None means that there is no file. Raises ConfigError."""
        self.path = path
        self.problems: tuple[str, ...] = ()
        self.config = WebConfig() if path is None else load_web(path)
        self.tls: ssl.SSLContext | None = self._context(self.config)
        self._watched: tuple[Path, ...] = ()
        self._seen: tuple[bytes | None, ...] | None = None
        """content of the watched files at the last reading; None: read them in any case"""

    def refresh(self) -> None:
        """Read the files again if one of them has changed. A refused change has no effect, and is logged once.

        The bytes themselves are compared, at each new connection and every few seconds: times of files are too coarse
        to separate two changes in quick succession. They are not compared at each request, since reading files takes
        the interpreter's lock a dozen times while threads decode and render. Refused files are read again in any case:
        a file that they name may exist by now.
        """
        contents = tuple(map(_content, self._watched))
        if self.path is None or (contents == self._seen and not self.problems):
            return
        before, config = self._seen, self.config
        try:
            config = load_web(self.path)
            tls = self._context(config)
            if (tls is None) != (self.tls is None):
                raise ConfigError(["tls_server_config: to turn TLS on or off needs a restart"])  # noqa: TRY301
            self.tls = tls
        except ConfigError as error:
            if error.problems != self.problems:
                reason = "the file of --web.config.file is refused, what was read before holds"
                log.warning("web_config", reason=reason, problems=list(error.problems))
            self.problems = error.problems
        else:
            self.problems, self.config = (), config
            if before is not None:
                log.info("web_config", reason="read anew")
        watched = (self.path, *(config.tls.files if config.tls is not None else ()))
        # The content before the files were loaded: a change in between is noticed the next time.
        self._seen, self._watched = (contents if watched == self._watched else None), watched

    @staticmethod
    def _context(config: WebConfig) -> ssl.SSLContext | None:
        try:
            return None if config.tls is None else config.tls.context()
        except (OSError, ValueError):
            raise ConfigError(["tls_server_config: a file changed while it was read"]) from None


def _content(path: Path) -> bytes | None:
    try:
        return head(path, FILE_BYTES)
    except (OSError, ValueError):
        return None
