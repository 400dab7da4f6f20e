"""What the operating system's errors mean for a store on a file system."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlbak.errors import (
    AccessDenied,
    ObjectKeyInvalid,
    ObjectNotFound,
    StoreFull,
    StoreUnreachable,
    VaultError,
)

__all__ = ["store_error", "translated"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def store_error(error: OSError, action: str, key: str, root: Path) -> VaultError:
    """The error of our tree for ``error``, met while doing ``action`` to ``key`` below ``root``."""
    where = f"cannot {action} {key or 'the vault'} in {root}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT:
            return ObjectNotFound(key)
        case errno.ENOTDIR | errno.EISDIR:
            return ObjectKeyInvalid(key, "one object's key would continue another's")
        case errno.ENAMETOOLONG:
            return ObjectKeyInvalid(key, f"the file system at {root} allows only shorter names")
        case code if code in _FULL:
            return StoreFull(where, hint="free space or raise the quota where the vault lives")
        case code if code in _DENIED:
            return AccessDenied(
                where, hint="the account that runs sqlbak must own the vault's directory"
            )
        case _:
            # EIO, ESTALE, ENOTCONN, ETIMEDOUT and whatever else a disk or a mount answers.
            return StoreUnreachable(where, hint="look at the disk or the mount below the vault")


@contextmanager
def translated(action: str, key: str, root: Path) -> Iterator[None]:
    """Turn OSError inside the block into the vault's errors."""
    try:
        yield
    except OSError as error:
        raise store_error(error, action, key, root) from error
