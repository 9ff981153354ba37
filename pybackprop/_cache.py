"""A bounded store of programs."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LRU(Generic[T]):
    """Keeps the entries used last, at most ``count`` of them and ``size`` bytes in all. Safe in several threads."""

    def __init__(self, count: int, size: int, size_of: Callable[[T], int]) -> None:
        self._entries: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()
        self._count, self._size, self._size_of = count, size, size_of
        self._used = 0
        _caches.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> T | None:
        """The entry, which is then the last to be dropped."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: Hashable, entry: T) -> None:
        """Adds or replaces an entry. The newest one stays however large it is."""
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._used -= self._size_of(old)
            self._entries[key] = entry
            self._used += self._size_of(entry)
            while len(self._entries) > 1 and (len(self._entries) > self._count or self._used > self._size):
                _, dropped = self._entries.popitem(last=False)
                self._used -= self._size_of(dropped)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._used = 0


_caches: weakref.WeakSet[LRU] = weakref.WeakSet()


def _renew_locks() -> None:
    for cache in _caches:
        cache._lock = threading.Lock()


# A thread that held a lock when the process was forked does not exist in the child, and would never release it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
