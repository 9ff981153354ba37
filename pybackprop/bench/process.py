"""A measured library's process: started with its thread count, stopped while others are measured, asked by lines."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Process", "environment"]


def environment(threads: int, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment with a thread count for every library that reads one."""
    counts = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "PYBACKPROP_NUM_THREADS",
    )
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return os.environ | dict.fromkeys(counts, str(threads)) | quiet | dict(extra)


class Process:
    """A worker script. Its spinning threads must not disturb others: call :meth:`pause` while they are measured."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(env),
        )

    def tell(self, line: str) -> None:
        """Wake it and send it a line."""
        self._signal("SIGCONT")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; the answer says why

    def answer(self) -> Any:
        """Its next answer; ``{"absent": reason}`` if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            return {"absent": (errors.strip().splitlines() or ["it ended without a word"])[-1]}
        return json.loads(line)

    def pause(self) -> None:
        """Stop it until it is told something."""
        self._signal("SIGSTOP")

    def close(self) -> None:
        """End it."""
        self._signal("SIGCONT")
        self._process.kill()
        self._process.communicate()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))
