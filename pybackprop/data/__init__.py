"""Feeding: how arrays and memory maps become minibatches. See :class:`ArrayFeeder` and :class:`PrefetchFeeder`."""

from ._feed import ArrayFeeder, PrefetchFeeder

__all__ = ["PREFETCH_BYTES", "ArrayFeeder", "PrefetchFeeder"]

# Bytes of source data in a batch from which a memory map is worth reading ahead. Below it the hand-over between two
# threads costs about as much as the gather.
PREFETCH_BYTES = 1 << 18
