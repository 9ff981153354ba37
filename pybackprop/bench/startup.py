"""What it costs to have the library: seconds to import it after NumPy, threads started by that, bytes of its wheel."""

import importlib.metadata
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Collection
from typing import Any

from .timing import summary

__all__ = ["run_startup", "wheel_bytes"]

_PROBE = """
import sys, threading, time, numpy
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
try:
    import os
    threads = len(os.listdir("/proc/self/task"))
except FileNotFoundError:
    threads = threading.active_count()
print(seconds, threads)
"""
_MODULES = {
    "ours": "pybackprop",
    "sklearn": "sklearn.neural_network",
    "torch": "torch",
    "jax": "jax.numpy",
    "numba": "numba",
    "tensorflow": "tensorflow",
}


def run_startup(rounds: int = 7, peers: Collection[str] = tuple(_MODULES)) -> list[dict[str, Any]]:
    """Import times beyond NumPy's own, interleaved, of those of ``peers`` that are installed; and the wheel's size."""
    samples: dict[str, list[float]] = {}
    threads: dict[str, int] = {}
    # OpenBLAS would start threads when NumPy is imported; with one there are none, and any left are the module's.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    for _ in range(rounds):
        for name, module in _MODULES.items():
            if name not in peers:
                continue
            done = subprocess.run(
                [sys.executable, "-P", "-c", _PROBE.format(module=module)],
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                seconds, count = done.stdout.split()
                samples.setdefault(name, []).append(float(seconds))
                threads[name] = int(count) - 1
    rows: list[dict[str, Any]] = [
        {"start": "import", "peer": name, "seconds": summary(taken), "threads_started": threads[name]}
        for name, taken in samples.items()
    ]
    size = wheel_bytes()
    if size is not None:
        rows.append({"start": "wheel", "peer": "ours", "bytes": size})
    return rows


def wheel_bytes() -> int | None:
    """Size of the wheel whose files are installed (they are packed again as a wheel packs them); None if unknown."""
    try:
        files = importlib.metadata.files("pybackprop") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [(str(file), str(file.locate())) for file in files if file.suffix != ".pyc"]
    if not any(name.startswith("pybackprop/_core") for name, _ in paths):
        return None  # an editable install lists no files of its own
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in paths:
            if os.path.exists(path):
                archive.write(path, name)
    return packed.tell()
