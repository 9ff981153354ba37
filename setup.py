"""The extensions and the per-instruction-set flags: what pyproject.toml cannot say."""

import os
import platform
import shlex
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ARM = platform.machine().lower() in ("aarch64", "arm64")
# Features rather than level names: every compiler knows them, and tuning stays generic.
V2 = ["-msse3", "-mssse3", "-msse4.1", "-msse4.2", "-mpopcnt", "-mcx16"]
V3 = [*V2, "-mavx", "-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
LEVELS = {"neon": []} if ARM else {"v2": V2, "v3": V3, "v4": V4}

COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-g0", "-Wall", "-Wextra", "-DNDEBUG"]
# Arithmetic as written: no fast-math, no contraction (fma is spelled out), errno and traps are nobody's business here.
ARITHMETIC = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
KERNEL = [*ARITHMETIC, "-Wno-psabi", "-Wno-unused-function"] + ([] if ARM else ["-mtune=generic"])

# For tests: PYBACKPROP_SANITIZE=address,undefined builds the highest instruction set alone, with checks in it.
SANITIZE = []
if checks := os.environ.get("PYBACKPROP_SANITIZE"):
    LEVELS = dict([LEVELS.popitem()])
    SANITIZE = [f"-fsanitize={checks}", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1", "-g1"]
    SANITIZE += [f"-DPBP_ONE_LEVEL={next(iter(LEVELS))}", "-w"]

PER_LEVEL = sorted([*Path("csrc/ops").glob("*.cpp"), Path("csrc/optim/rules.cpp"), Path("csrc/measure/limits.cpp")])
ONCE = sorted([*Path("csrc/core").glob("*.cpp"), *Path("csrc/bindings").glob("*.cpp")])


def stale(target: Path) -> bool:
    """Whether the object must be compiled again, by the dependency file the compiler left beside it."""
    rules = target.with_suffix(".d")
    if not target.exists() or not rules.exists():
        return True
    made = target.stat().st_mtime
    used = rules.read_text().split(":", 1)[1].replace("\\\n", " ").split()
    return any(not Path(f).exists() or Path(f).stat().st_mtime > made for f in [*used, __file__])


class BuildExt(build_ext):
    """Compiles each kernel source once per instruction set, in parallel, and only what changed."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "pybackprop._core":
            ext.extra_objects = self.compile_core(Path(self.build_temp))
        super().build_extension(ext)

    def compile_core(self, folder: Path) -> list[str]:
        cxx = shlex.split(os.environ.get("CXX", "") or sysconfig.get_config_var("CXX") or "c++")
        extra = shlex.split(os.environ.get("CXXFLAGS", "")) + SANITIZE
        include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
        jobs = [(s, folder / "once" / s.parent.name / f"{s.stem}.o", [*ARITHMETIC, "-fopenmp", *include]) for s in ONCE]
        for level, flags in LEVELS.items():
            jobs += [(s, folder / level / f"{s.stem}.o", [*KERNEL, *flags, f"-DPBP_ISA={level}"]) for s in PER_LEVEL]

        def compile_one(job: tuple[Path, Path, list[str]]) -> None:
            source, target, flags = job
            if not self.force and not stale(target):
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            dependencies = ["-MMD", "-MF", str(target.with_suffix(".d"))]
            subprocess.run(
                [*cxx, *COMMON, *flags, *extra, *dependencies, "-c", str(source), "-o", str(target)], check=True
            )

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(compile_one, jobs))
        return [str(target) for _, target, _ in jobs]


STRIP = ["-Wl,--strip-all"] if platform.system() == "Linux" else []
core = Extension(
    "pybackprop._core",
    sources=[],
    depends=[str(p) for p in Path("csrc").rglob("*.*")],
    extra_link_args=["-fopenmp", *(SANITIZE or STRIP)],
    language="c++",
)
feed = Extension(
    "pybackprop.data._feed",
    sources=["pybackprop/data/_feed.pyx"],
    include_dirs=["csrc"],
    depends=["csrc/core/feeder.h", "csrc/data/prefetch.h", "csrc/data/rows.h"],
    extra_compile_args=["-O3", "-g0", *SANITIZE],
    extra_link_args=["-pthread", *SANITIZE],
)

setup(
    ext_modules=[core, *cythonize([feed], language_level=3, build_dir="build/cython")],
    cmdclass={"build_ext": BuildExt},
)
