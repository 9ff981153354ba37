"""Files that are, at any moment, the whole former content or the whole new one."""

import contextlib
import errno
import os
from collections.abc import Iterable
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where the file of a process that writes cannot be deleted
    fcntl = None  # type: ignore[assignment]

__all__ = ["write_atomically"]

_PREFIX, _SUFFIX = ".pybackprop-", ".tmp"


def write_atomically(path: str, parts: Iterable[Any]) -> None:
    """Write the parts (bytes, or arrays of them), one after the other, to exactly ``path``.

    They go to a temporary file in the same folder, which is synchronised to disk and renamed; the folder is
    synchronised after that. What writers that were killed have left in the folder is deleted on the way.

    Raises:
        ValueError: there is no such folder, or ``path`` is one.
        OSError: the file cannot be written; the sentence names ``path``, which is as it was.
    """
    target = os.path.realpath(path)  # a link stays a link
    folder = os.path.dirname(target)
    if not os.path.isdir(folder) or os.path.isdir(target):
        why = "it is a folder" if os.path.isdir(target) else f"there is no folder {folder}"
        raise ValueError(f"{path} cannot be written: {why}.")
    temporary = None
    try:
        _delete_abandoned(folder)
        file, temporary = _begin(folder)
        with file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix":
                os.replace(temporary, target)  # while the lock on it is held: until then it is no abandoned file
        if os.name != "posix":
            os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            why = os.strerror(error.errno) if error.errno else str(error)
            kept = "the former file is as it was" if os.path.exists(target) else "no file was left"
            raise OSError(error.errno or errno.EIO, f"{why} while writing (nothing is lost: {kept})", path) from None
        raise
    if os.name == "posix":  # the new name must reach the disk as well; other systems cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _begin(folder: str) -> tuple[BinaryIO, str]:
    """A new temporary file, locked for as long as it is open."""
    while True:
        temporary = os.path.join(folder, f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
        # Not tempfile: its files are private to the user, and a model file has the permissions any new file has.
        file = open(temporary, "xb")  # noqa: SIM115 - given to the caller
        _lock(file, wait=True)
        if os.path.exists(temporary):  # else another writer took it for abandoned before it was locked
            return file, temporary
        file.close()


def _delete_abandoned(folder: str) -> None:
    """Delete temporary files whose writers are gone: nobody holds their locks."""
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)]
    for path in found:
        with contextlib.suppress(OSError):
            if fcntl is None:
                os.unlink(path)
                continue
            with open(path, "rb") as file:
                if _lock(file):
                    os.unlink(path)


def _lock(file: BinaryIO, wait: bool = False) -> bool:
    """Whether the file is locked now, until it is closed or the process ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another holds it, or the file system has no locks
        return False
    return True
