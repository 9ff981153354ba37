"""Python in a process of its own: for what depends on how a process starts, or would harm this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def python(*arguments: str, **env: str | None) -> subprocess.CompletedProcess:
    """A fresh interpreter outside the clone, with changed variables (None: unset); it has a minute."""
    variables = {**os.environ, **env}
    with subprocess.Popen(
        [sys.executable, "-P", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.sep,
        env={name: value for name, value in variables.items() if value is not None},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the children it has forked
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def printed(code: str, **env: str | None) -> str:
    """What ``code`` prints; it must succeed."""
    done = python("-c", code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
