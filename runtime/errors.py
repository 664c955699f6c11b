"""What can go wrong in a run.

    RunError            a mistake of ours, where it is none of those below
    ├── InvalidInputs   the caller's mistake; names every input at fault          (not retried)
    ├── UnknownGraph    no graph of that name is deployed here                    (not retried)
    ├── RunCancelled    somebody ended the run before it was done              (not retried)
    ├── UnknownRun      nothing is kept of a run of that id                       (not retried)
    ├── RunExists       a run of that id has begun already                        (not retried)
    ├── RunEnded        the run has succeeded, or somebody must resume it     (not retried)
    ├── BudgetExceeded  the run owes more tokens than its caller gave it       (not retried)
    ├── TooMuchToKeep   a durable run gives more than is kept of one           (not retried)
    ├── RunHeld         another runner goes on with the run
    ├── LeaseLost       another runner has taken the run over: this one says nothing more of it
    └── NodeError       a node could not compute its outputs from what it was given

Beside these a run ends in any `cluster.errors.ClusterError`, with the node it came from. What is wrong with
a pipeline itself is found before it runs and is `graphs.errors.PipelineError`.

All are `ClusterError`s, so that they survive pickling and cross a process as `messages.Failure` in one way.
"""

from __future__ import annotations

import msgspec

from cluster import errors as cluster_errors
from cluster.errors import ClusterError
from cluster.messages import Failure


class RunError(ClusterError):
    """Base of what this package raises on purpose; on its own, a mistake of ours that ended a run."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self).__name__, self.message, self.param)


class InputProblem(msgspec.Struct, frozen=True):
    """One input at fault."""

    field: str
    """Path of the field, as `question` or `filters.0.name`."""
    message: str


class InvalidInputs(RunError):
    """The inputs do not fit the graph. `problems` names every field; `param` is the first of them."""

    def __init__(self, problems: list[InputProblem]) -> None:
        super().__init__(
            "; ".join(f"{problem.field}: {problem.message}" for problem in problems),
            param=problems[0].field,
        )
        self.problems = problems

    def __reduce__(self) -> tuple[object, ...]:
        return InvalidInputs, (self.problems,)


class UnknownGraph(RunError):
    """No graph of that name is deployed here."""


class RunCancelled(RunError):
    """The run was ended from outside: by a call to cancel it, or because its reader left."""


class UnknownRun(RunError):
    """Nothing is kept of a run of that id: there was none, it was not durable, or it was long ago."""


class RunExists(RunError):
    """A run of that id has begun already."""


class RunEnded(RunError):
    """The run does not go on: it has succeeded, or somebody must say that it is to be resumed."""


class BudgetExceeded(RunError):
    """The run owes more tokens than its caller gave it, or a call of it would have to."""


class TooMuchToKeep(RunError):
    """What the run gives is larger than what is kept of a durable run."""


class RunHeld(RunError):
    """Another runner goes on with the run."""


class LeaseLost(RunError):
    """Another runner has taken the run over. This one must not write or tell anything more of it."""


class NodeError(RunError):
    """A node could not compute its outputs: a template over its bound, a field that is not there."""


def from_failure(failure: Failure) -> ClusterError:
    """The exception that a `Failure` stands for, of this package or of `cluster.errors`."""
    if failure.kind == InvalidInputs.__name__ and failure.param is not None:
        told = failure.message.removeprefix(f"{failure.param}: ")
        return InvalidInputs([InputProblem(failure.param, told)])
    if failure.kind in (*_KINDS, RunError.__name__):
        return _rebuild(failure.kind, failure.message, failure.param)
    return cluster_errors.from_failure(failure)


def _rebuild(kind: str, message: str, param: str | None) -> RunError:
    return _KINDS.get(kind, RunError)(message, param=param)


_KINDS: dict[str, type[RunError]] = {
    each.__name__: each
    for each in (
        UnknownGraph,
        RunCancelled,
        UnknownRun,
        RunExists,
        RunEnded,
        BudgetExceeded,
        TooMuchToKeep,
        RunHeld,
        LeaseLost,
        NodeError,
    )
}
