"""Something that is done again and again beside a test."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Repeating(ABC):
    """Does something again and again, in a thread of its own, while its context lasts."""

    def __init__(self, *, pause: float) -> None:
        """`pause` is how long it waits before each time, in seconds."""
        self._pause = pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait until the thread has ended."""
        self._done.set()
        self._thread.join()

    def again(self) -> bool:
        """Wait for the pause, and return whether to go on."""
        return not self._done.wait(self._pause)

    @abstractmethod
    def _run(self) -> None:
        """Do it while `again` says so."""
