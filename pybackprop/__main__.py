"""``python -m pybackprop``: the same commands as ``pybackprop``."""

import sys

from .cli import main

sys.exit(main())
