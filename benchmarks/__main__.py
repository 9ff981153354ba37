"""``python -m benchmarks [names] [--json FILE] [--compare FILE]``, from the clone, with the installed wheel."""

import argparse
import sys

from pybackprop import bench

from .cases import CASES

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=bench.__doc__)
bench.add_arguments(parser)
try:
    sys.exit(bench.run(parser.parse_args(), CASES))
except (OSError, ValueError) as error:
    sys.exit(f"benchmarks: {error}")
