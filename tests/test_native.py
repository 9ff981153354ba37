"""Every op case in other builds: without Python, with sanitizers, on another architecture, on an older CPU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sanitized

sys.path.insert(0, str(Path(__file__).parent / "native"))
import native_build
import native_cases

from pybackprop import _core

X86 = platform.machine().lower() in ("x86_64", "amd64")
HIGHEST = _core.isa_names()[-1]
CHECKS = ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def needs(program: str):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def replay(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "all cases agree" in done.stdout


@pytest.mark.slow
@needs("g++")
@pytest.mark.skipif(not X86, reason="levels of x86-64")
def test_without_python_under_sanitizers(tmp_path):
    """Also: what another compiler's flags make of AVX2 has the bits of this build's AVX-512."""
    level = HIGHEST.removeprefix("x86-64-")
    program = native_build.build(tmp_path, level, extra=CHECKS)
    assert native_cases.write(tmp_path / "cases") > 1000
    native_cases.write(tmp_path / "double", "float64")
    replay(program, tmp_path / "cases")
    replay(program, tmp_path / "cases", 3)
    replay(program, tmp_path / "double")
    native_cases.write(tmp_path / "bits", isa=HIGHEST)
    replay(program, tmp_path / "bits", 2)


@pytest.mark.slow
@needs("aarch64-linux-gnu-g++")
@needs("qemu-aarch64")
def test_on_aarch64(tmp_path):
    program = native_build.build(tmp_path, "neon", cxx="aarch64-linux-gnu-g++", extra=["-O2"], link=["-static"])
    for dtype in ("float32", "float64"):
        native_cases.write(tmp_path / dtype, dtype)
        replay("qemu-aarch64", program, tmp_path / dtype)
    replay("qemu-aarch64", program, tmp_path / "float32", 2)


@pytest.mark.slow
@needs("g++")
@pytest.mark.skipif(not X86, reason="the sanitizers' libraries are looked up for x86-64")
def test_suite_under_sanitizers(tmp_path):
    arguments = ("-q", "-x", *(f"tests/{name}" for name in sanitized.TESTS))
    assert sanitized.run(sanitized.build(tmp_path), *arguments) == 0


@pytest.mark.slow
@needs("g++")
@pytest.mark.skipif(not X86, reason="ThreadSanitizer's library is looked up for x86-64")
def test_no_data_race_between_callers(tmp_path):
    """The core with std::thread instead of OpenMP, whose waiting the sanitizer cannot follow."""
    flags = ("-O1", "-g1", "-fsanitize=thread", "-DPBP_STD_THREADS")
    program = native_build.build(tmp_path, "v2", program="race", extra=flags)
    # A layout of addresses that is not random: the sanitizer's own memory has fixed places.
    command = ["setarch", "-R", str(program), "20"] if shutil.which("setarch") else [str(program), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert "every reader saw a finished step" in done.stdout
    assert int(done.stdout.split()[0]) > 100, done.stdout  # calls


def emulated(cpu: str, code: str) -> subprocess.CompletedProcess[str]:
    """Python on an older CPU, with the packages of this process."""
    command = ["qemu-x86_64", "-cpu", cpu, os.path.realpath(sys.executable), "-P", "-c", code]
    places = [str(Path(_core.__file__).parents[1]), *(p for p in sys.path if p)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@needs("qemu-x86_64")
def test_a_cpu_below_the_lowest_level_is_told_so():
    done = emulated("core2duo", "import pybackprop")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pybackprop needs a CPU with at least the x86-64-v2 instructions (SSE4.2, POPCNT)"
    )


@pytest.mark.slow
@needs("qemu-x86_64")
def test_trains_on_a_cpu_of_2008():
    done = emulated(
        "Nehalem",
        "import numpy as np, pybackprop as pb\n"
        "from pybackprop import _core, nn, optim\n"
        "X = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]); y = np.array([0, 1, 1, 0])\n"
        "trainer = pb.Trainer(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), nn.CrossEntropyLoss(),\n"
        "                     optimizer=optim.Adam(lr=0.05), metrics=['accuracy'])\n"
        "trainer.fit(X, y, epochs=100, verbose=0)\n"
        "print(_core.isa_names(), trainer.evaluate(X, y)['accuracy'])",
    )
    assert done.stdout == "['x86-64-v2'] 1.0\n", done.stderr
