"""What can go wrong in the cluster.

    ClusterError
    ├── InvalidCall        the caller's mistake; names the field            (not retried)
    ├── DeadlineExceeded   the call's deadline passed                       (not retried)
    ├── Overloaded         full; says when to come back                     (retry later)
    ├── ModelUnavailable   no replica can answer now; says when to come back (retry later)
    ├── ReplicaLost        the replica died while it worked on the call     (retry if nothing was sent yet)
    ├── EngineFailed       the engine or a provider broke                   (retry if nothing was sent yet)
    └── ConfigError        a spec that cannot be deployed; raised before anything is

Every one survives pickling, and crosses a process as `messages.Failure`.
"""

from __future__ import annotations

from cluster.messages import Failure


class ClusterError(Exception):
    """Base of everything this package raises on purpose."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self).__name__, self.message, self.param, self.retry_after_s)

    def as_failure(self) -> Failure:
        return Failure(type(self).__name__, self.message, self.param, self.retry_after_s)


class InvalidCall(ClusterError):
    """The caller's mistake. `param` names the field."""


class DeadlineExceeded(ClusterError):
    """The call's deadline passed before it was done."""


class Overloaded(ClusterError):
    """Every queue that could take the call is full."""


class ModelUnavailable(ClusterError):
    """No replica of the model can answer now."""


class ReplicaLost(ClusterError):
    """The replica died while it worked on the call."""


class EngineFailed(ClusterError):
    """The engine or a remote provider broke."""


class ConfigError(ClusterError):
    """A spec that cannot be deployed."""


_KINDS: dict[str, type[ClusterError]] = {
    kind.__name__: kind
    for kind in (
        InvalidCall,
        DeadlineExceeded,
        Overloaded,
        ModelUnavailable,
        ReplicaLost,
        EngineFailed,
        ConfigError,
    )
}


def _rebuild(kind: str, message: str, param: str | None, retry_after_s: float | None) -> ClusterError:
    return _KINDS.get(kind, ClusterError)(message, param=param, retry_after_s=retry_after_s)


def from_failure(failure: Failure) -> ClusterError:
    """The exception a `Failure` stands for. An unknown kind becomes a plain `ClusterError`."""
    return _rebuild(failure.kind, failure.message, failure.param, failure.retry_after_s)
