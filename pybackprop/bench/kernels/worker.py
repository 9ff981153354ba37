"""One library's kernels in a process of its own, driven over standard input and output.

Run as a script, by path, with Python's ``-P`` switch. Arguments: the library's file, and the number of threads. It
answers each line of JSON with one:

* ``{"kind", "shape", "data"}``: prepares a kernel on the data of an .npz file, where ``e0``, ``e1``, … are the results
  expected; answers ``{"ready": version}`` or ``{"absent": reason}`` or ``{"wrong": what}``;
* ``{"run": n}``: does it n times after one that is not timed; answers ``{"seconds": of one, …}``.
"""

import importlib.util
import json
import os
import sys
import time

_RTOL = 2e-4  # of the largest result: sums of thousands of float32 products, in any order


def main() -> None:
    file, threads = sys.argv[1], int(sys.argv[2])
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    spec = importlib.util.spec_from_file_location("library", file)
    assert spec is not None and spec.loader is not None
    library = importlib.util.module_from_spec(spec)
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not answer
    missing = ""
    try:
        spec.loader.exec_module(library)
    except ImportError as error:
        missing = str(error)
    import numpy as np

    work = None
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            answer = _time(work, asked["run"])
        elif missing:
            answer = {"absent": missing}
        else:
            with np.load(asked["data"]) as stored:
                data = dict(stored)
            wanted = [data.pop(name) for name in sorted(data) if name[0] == "e" and name[1:].isdecimal()]
            try:
                work = library.build(asked["kind"], tuple(asked["shape"]), data, threads)
                answer = {"ready": library.version()}
                wrong = _difference(work.results(), wanted, np)
                if wrong:
                    answer = {"wrong": wrong}
            except ValueError as error:
                answer = {"absent": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _difference(got, wanted, np):
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if a.shape != b.shape:
            return f"result {k} has shape {a.shape}, expected {b.shape}"
        worst = float(np.abs(a - b).max())
        if not worst <= _RTOL * max(1.0, float(np.abs(b).max())):
            return f"result {k} is off by {worst:.3g}"
    return ""


def _time(work, count):
    if hasattr(work, "sample"):  # it has a clock of its own
        return work.sample(count)
    work.run(1)
    start = time.perf_counter()
    work.run(count)
    return {"seconds": (time.perf_counter() - start) / count}


if __name__ == "__main__":
    main()
