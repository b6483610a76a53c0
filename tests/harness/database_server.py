"""What the throw-away database servers of the tests have in common."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.agentos import free_port


class DatabaseServer(ABC):
    """A running server in a temporary directory, gone afterwards; a context manager.

    Attributes:
        port: where it listens, on localhost only.
        directory: all that it writes.

    """

    def __init__(self, prefix: str, user: str, missing: type[Exception]) -> None:
        """Describe the server; entering the context creates and starts it.

        Args:
            prefix: of the name of its directory.
            user: who runs it where the tests run as root, as such servers refuse to run as root.
            missing: raised if there is no such user.

        """
        self._prefix = prefix
        self._user: str | None = None
        if os.geteuid() == 0:
            try:
                self._user = pwd.getpwnam(user).pw_name
            except KeyError:
                raise missing(f"running as root and there is no user {user}") from None
        self.port = 0
        self.directory = Path()

    def __enter__(self) -> Self:
        """Create the data directory and start the server."""
        self.directory = Path(tempfile.mkdtemp(prefix=self._prefix))
        if self._user:
            shutil.chown(self.directory, self._user)
        self.port = free_port()
        try:
            self._create()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and delete all that it wrote."""
        self._remove()

    def _remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @abstractmethod
    def _create(self) -> None:
        """Make the data directory."""

    @abstractmethod
    def start(self) -> None:
        """Start the server, also again after `stop`, and wait until it accepts connections."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server as a crash would, without waiting for its clients; what is committed stays."""
