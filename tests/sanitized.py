"""Builds the package with AddressSanitizer and UndefinedBehaviorSanitizer and runs tests under them.

    python tests/sanitized.py [FOLDER [PYTEST-ARGUMENT ...]]

The build goes to FOLDER (default: a temporary one) and is used again if it is there. Default tests: every op at every
size, programs, training steps, random graphs, feeding. Exit status: pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "test_memory_bounds.py",
    "test_ops_properties.py",
    "test_program.py",
    "test_stepper.py",
    "test_early_updates.py",
    "test_random_graphs.py",
    "test_optim.py",
    "test_data.py",
)


def build(folder: Path) -> Path:
    """The package in ``folder``; incremental."""
    library = folder / "lib"
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(folder), "--build-lib", str(library)]
    environment = {**os.environ, "PYBACKPROP_SANITIZE": "address,undefined"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return library


def run(library: Path, *arguments: str) -> int:
    """pytest with these arguments, on that build."""
    compiler = os.environ.get("CXX", "g++")
    preload = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(preload),
        "PYTHONPATH": str(library),
        "PYTHONMALLOC": "malloc",  # so that Python's and NumPy's own blocks are watched too
        # Python and NumPy keep memory to the end; the fence test ends a child by a fault of its own.
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.call(
        # A report is written by C, and the process ends: pytest must not hold it back.
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--capture=sys", *arguments],
        cwd=ROOT,
        env=environment,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder, *given = sys.argv[1:] or [temporary]
        sys.exit(run(build(Path(folder).resolve()), *(given or ["-q", *(f"tests/{name}" for name in TESTS)])))
