"""Files of random bytes that only their owner reads: the pepper of API keys, the data key of runs."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


class SecretFileError(Exception):
    """The file cannot be used."""


def load_or_create(path: Path, size: int) -> bytes:
    """What the file holds, made first (`size` random bytes, mode 0600) if there is none.

    Any number of processes may call it at once: all get the same bytes, and none sees half a file.
    Raises `SecretFileError` if others may read it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _create(path, size)
    if path.stat().st_mode & 0o077:
        raise SecretFileError(f"{path} may be read by others: chmod 600 {path}")
    return path.read_bytes()


def _create(path: Path, size: int) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(size))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, never replaces another's secret
    finally:
        draft.unlink()
