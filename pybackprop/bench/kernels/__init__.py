"""Single kernels: ours, timed inside the core, beside the machine's limit and the same work of other libraries.

``cases.py`` says what is computed and what it should give, each other file how one library computes it. One process per
library and thread count measures all of them: ``worker.py``.
"""

from .cases import KERNELS, Kernel
from .report import kernel_lines, kernel_table
from .runner import KERNEL_PEERS, run_kernels

__all__ = ["KERNELS", "KERNEL_PEERS", "Kernel", "kernel_lines", "kernel_table", "run_kernels"]
