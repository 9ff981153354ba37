"""No op reads or writes outside its buffers, at any size round a vector tail.

Guarded programs give every buffer memory of its own, filled with NaN before a run and followed by a band that must be
intact after it. What a program borrows from its caller ends where an inaccessible page begins.
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import numpy as np
import pytest
from op_cases import CASES
from op_program import OpProgram, case_rng, cast, same_bits

from pybackprop import _core

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
LEVELS = _core.isa_names()


def agree(case, arrays, dtype, isa, threads=1):
    """A guarded program finds its bands intact and gives the bits of a plain one."""
    results = []
    for guarded in (False, True):
        program = OpProgram(case, arrays, dtype=dtype, isa=isa, gradient=case.grad, threads=threads, guarded=guarded)
        directions = program.directions(case_rng(case)) if case.grad else None
        outputs, _, gradients = program.run(arrays, directions)
        results.append([*outputs, *gradients])
    for plain, guarded in zip(*results, strict=True):
        assert same_bits(plain, guarded), (
            f"{case} {[a.shape for a in arrays]}: a result depends on memory never written"
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_the_arena(case):
    arrays = case.inputs(case_rng(case))
    for isa, dtype, threads in ((LEVELS[0], "float32", 1), (LEVELS[-1], "float32", 2), (LEVELS[-1], "float64", 1)):
        agree(case, cast(arrays, dtype), dtype, isa, threads)


@pytest.mark.parametrize("case", [c for c in CASES if c.sizes is not None], ids=str)
def test_within_the_arena_at_every_tail(case):
    for n in SIZES:
        arrays = cast(case.sizes(case_rng(case), n), "float32")
        for isa in LEVELS:
            agree(case, arrays, "float32", isa)


class Fenced:
    """Arrays whose last byte is the last before a page that cannot be touched."""

    def __init__(self):
        self._kept, self._mprotect = [], ctypes.CDLL(None, use_errno=True).mprotect

    def array(self, a: np.ndarray) -> np.ndarray:
        size = -(-a.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, size + mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if self._mprotect(ctypes.c_void_p(start + size), mmap.PAGESIZE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        self._kept.append(memory)
        fenced = np.frombuffer(memory, a.dtype, a.size, size - a.nbytes).reshape(a.shape)
        fenced[...] = a
        return fenced


def fenced_programs() -> int:
    """Every op over borrowed inputs large enough not to be copied; ends the process where one is overrun."""
    done = 0
    for case in CASES:
        if case.sizes is None:
            continue
        for n in (1999, 2049, 4097):  # from 8 KiB on inputs are read where they lie
            rng = case_rng(case)
            arrays = cast(case.sizes(rng, n), "float32")
            for isa in LEVELS:
                fence = Fenced()
                program = OpProgram(case, arrays, dtype="float32", isa=isa, gradient=case.grad)
                directions = program.directions(case_rng(case)) if case.grad else None
                plain = program.run(arrays, directions)
                kept = [fence.array(a) if a.size else a for a in arrays]
                if directions is not None:
                    directions = [fence.array(d) if d.size else d for d in cast(directions, "float32")]
                fenced = program.run(kept, directions)
                for a, b in zip([*plain[0], *plain[2]], [*fenced[0], *fenced[2]], strict=True):
                    assert same_bits(a, b), case
                done += 1
    return done


def test_borrowed_inputs_are_not_overrun():
    """In a child: an overrun is a segmentation fault."""
    code = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "import test_memory_bounds as t\nprint(t.fenced_programs())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
