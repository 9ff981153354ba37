"""One peer in a process of its own, driven over standard input and output.

Run as a script, by path, with Python's ``-P`` switch, so that nothing but the peer is imported. Arguments: the peer's
file, its variant, the case as JSON, the data as .npz. It prints one JSON line when it is ready, then answers:

* ``run n``: train n steps after a few untimed ones; prints the seconds that the n took (what ``sample(n)`` says, if the
  peer has one);
* end of input: leave.
"""

import importlib.util
import json
import os
import sys
import time


def main() -> None:
    file, variant, case_text, data_path = sys.argv[1:]
    case = json.loads(case_text)
    if case["threads"] == 1 and hasattr(os, "sched_setaffinity"):
        # Some peers start threads of their own however they are told; on one core they cannot gain from them.
        cpu = case["cpu"]
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if cpu is None else cpu})
    spec = importlib.util.spec_from_file_location("peer", file)
    assert spec is not None and spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    answers, sys.stdout = sys.stdout, sys.stderr  # a peer that prints must not answer

    def answer(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        spec.loader.exec_module(peer)
    except ImportError as error:
        return answer({"absent": str(error)})
    import numpy as np

    with np.load(data_path) as stored:
        data = dict(stored)
    begun = time.perf_counter()
    try:
        run = peer.build(case, data, variant)
    except ValueError as error:
        return answer({"absent": str(error)})
    losses = run.losses(case["check_steps"])
    answer(
        {
            "losses": losses,
            "version": peer.version(),
            "epoch_steps": len(data["x"]) if getattr(run, "whole_epochs", False) else 1,
            "prepare_seconds": time.perf_counter() - begun,
        }
    )
    for line in sys.stdin:
        steps = int(line.removeprefix("run "))
        if hasattr(run, "sample"):  # it has a clock of its own
            answer(run.sample(steps))
            continue
        run.run(case["warm_steps"] if not getattr(run, "whole_epochs", False) else len(data["x"]))
        start = time.perf_counter()
        run.run(steps)
        answer(time.perf_counter() - start)


if __name__ == "__main__":
    main()
