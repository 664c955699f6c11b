"""What can go wrong with the store.

    StoreError
    ├── InvalidStoreUrl       the URL names no store; never repeats the URL, it may hold a password
    ├── InvalidName           a tenant or id that may not become part of a key
    ├── StoreUnavailable      no answer within the time-out; what was asked may or may not have happened
    │   └── StoreOut          known to be out already: nothing was asked
    ├── CommandFailed         the store answered with an error: a fault of ours, not of the caller
    └── EmbeddedStoreError    the embedded server
        ├── SocketPathTooLong
        ├── StoreStartFailed
        └── StoreStopFailed

Each holds one message and survives pickling.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidStoreUrl(StoreError):
    """Not a unix://, redis:// or rediss:// URL."""


class InvalidName(StoreError):
    """A tenant or id outside the alphabet that keys are built from."""


class StoreUnavailable(StoreError):
    """The store is out, too slow, full, or refuses our credentials. Retry only what is idempotent."""


class StoreOut(StoreUnavailable):
    """The store did not answer others a moment ago, so it was not asked."""


class CommandFailed(StoreError):
    """The store understood the connection and refused the command or script."""


class EmbeddedStoreError(StoreError):
    """The embedded server cannot be controlled."""


class SocketPathTooLong(EmbeddedStoreError):
    """The directory's path does not leave room for a Unix socket."""


class StoreStartFailed(EmbeddedStoreError):
    """No server answers from the directory; the message ends with the last lines of its log."""


class StoreStopFailed(EmbeddedStoreError):
    """The server outlived SHUTDOWN, SIGTERM and SIGKILL."""
