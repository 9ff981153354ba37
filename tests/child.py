"""Python in a process of its own: for what depends on how a process starts, or would harm this one."""

from __future__ import annotations

import os
import subprocess
import sys


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    """A fresh interpreter outside the clone, with ``arguments``; it is given a minute."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.sep,
        env={**os.environ, **env},
        check=False,
    )


def printed(code: str, **env: str) -> str:
    """What ``code`` prints; it must succeed."""
    done = python("-c", code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
