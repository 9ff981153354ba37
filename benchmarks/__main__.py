"""``python -m benchmarks [names] [--json FILE] [--compare FILE]``, from the clone, with the installed wheel."""

import argparse
import sys

from pybackprop import bench
from pybackprop.bench.kernels import KERNELS

from .cases import CROWDED, FITS, STEPS

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=bench.__doc__)
bench.add_arguments(parser)
try:
    sys.exit(bench.run(parser.parse_args(), STEPS, FITS, KERNELS, CROWDED))
except (OSError, ValueError) as error:
    sys.exit(f"benchmarks: {error}")
