"""Ctrl-C and the request to end (SIGTERM) as requests to stop at the next batch boundary."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Terminated(Exception):
    """SIGTERM has come: whatever takes long is left."""


class Interruptible:
    """Within the block the first Ctrl-C only sets ``requested``; a second one raises KeyboardInterrupt as usual.

    With ``terminable`` the first SIGTERM only sets ``terminated``, and ends the process, as it would have, when the
    block is left; a second one at once. Only the handlers of Python and the system are replaced, and only in the main
    thread: where another is installed, it is called as ever.
    """

    def __init__(self, terminable: bool = False) -> None:
        self.requested = self.terminated = False
        self._terminable = terminable
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            if self._terminable and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.terminated:
            if kind is not None and error is not None:  # a checkpoint that could not be written, for one
                sys.excepthook(kind, error, trace)
            self._end()

    def check(self) -> None:
        """Raises :class:`Terminated` if SIGTERM has come."""
        if self.terminated:
            raise Terminated

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self.terminated:
            self._end()
        self.terminated = True

    @staticmethod
    def _end() -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
