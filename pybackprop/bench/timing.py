"""Numbers: medians with their spread, whether two differ, and the machine on which they were taken."""

import datetime
import os
import platform
from typing import Any

import numpy as np

__all__ = ["compare", "cpu_flags", "machine", "show_time", "summary"]


def summary(samples: list[float]) -> dict[str, float]:
    """Median and quartiles of repeated timings."""
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3), "rounds": len(samples)}


def show_time(seconds: float) -> str:
    """Three digits with a unit, as ``12.3 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def compare(old: dict[str, float], new: dict[str, float]) -> tuple[float, bool]:
    """``(new / old, real)``: the ratio of two medians, and whether their quartile ranges lie apart."""
    return new["median"] / old["median"], new["q3"] < old["q1"] or old["q3"] < new["q1"]


def _cpuinfo(field: str) -> str:
    if not os.path.exists("/proc/cpuinfo"):
        return ""
    with open("/proc/cpuinfo") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(field)), "")


def cpu_flags() -> set[str]:
    """The CPU's feature names where the system tells them (Linux), else nothing."""
    return set(_cpuinfo("flags").split())


def machine() -> dict[str, Any]:
    """Where and when: CPU, usable CPUs, system, Python, load at the start."""
    return {
        "cpu": _cpuinfo("model name") or platform.processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "avx512": "avx512f" in cpu_flags(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.date.today().isoformat(),
    }
