"""``python -m benchmarks [names] [--json FILE] [--compare FILE]``, from the clone, with the installed wheel.

``python -m benchmarks sklearn`` and ``python -m benchmarks tabular`` are about scikit-learn's estimators and tables.
"""

import argparse
import sys

from pybackprop import bench
from pybackprop.bench.kernels import KERNELS

from .cases import CROWDED, FITS, STEPS


def main(arguments: list[str]) -> int:
    """Hand the command to whoever measures it."""
    if arguments[:1] == ["sklearn"]:
        from . import estimators

        return estimators.main(arguments[1:])
    if arguments[:1] == ["tabular"]:
        from . import tabular

        return tabular.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=bench.__doc__)
    bench.add_arguments(parser)
    return bench.run(parser.parse_args(arguments), STEPS, FITS, KERNELS, CROWDED)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks: {error}")
