"""Python in a process of its own: for what depends on how a process starts, or would harm this one."""

from __future__ import annotations

import os
import subprocess
import sys


def python(*arguments: str, **env: str | None) -> subprocess.CompletedProcess:
    """A fresh interpreter outside the clone, with changed variables (None: unset); it has a minute."""
    variables = {**os.environ, **env}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.sep,
        env={name: value for name, value in variables.items() if value is not None},
        check=False,
    )


def printed(code: str, **env: str | None) -> str:
    """What ``code`` prints; it must succeed."""
    done = python("-c", code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
