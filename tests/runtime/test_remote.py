"""A runner behind a handle: what comes back is what the runner said, or that nobody knows."""

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from cluster.errors import Overloaded, ReplicaLost
from runtime.durability.model import Checkpoint
from runtime.errors import InputProblem, InvalidInputs, RunHeld
from runtime.remote import HandleRunner, decode_checkpoints, encode_failure
from runtime.request import RunRequest, decode_request

ASKED = RunRequest("run-1", "g", {"q": 1}, 5.0, "acme", durability="step")


class Handle:
    """A handle whose methods answer what they are told to."""

    def __init__(self, answer: bytes | Exception, method: str = "") -> None:
        self._answer = answer
        self._method = method
        self.calls: list[tuple] = []

    def options(self, method_name: str, **_options):
        made = Handle(self._answer, method_name)
        made.calls = self.calls
        return made

    def remote(self, *arguments):
        self.calls.append((self._method, *arguments))
        return self._answered()

    async def _answered(self) -> bytes:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def test_runs_are_begun_and_resumed():
    handle = Handle(b"")
    runner = HandleRunner(handle)
    await runner.start(ASKED, [Checkpoint("a", {"text": "x"})])
    await runner.resume("acme", "run-1")
    (start, payload, done), resume = handle.calls
    assert (start, decode_request(payload)) == ("start", ASKED)
    assert decode_checkpoints(done) == [Checkpoint("a", {"text": "x"})]
    assert resume == ("resume", "acme", "run-1", None)


@pytest.mark.parametrize(
    "error", [RunHeld("somebody drives it"), InvalidInputs([InputProblem("q", "is required")])]
)
async def test_a_refusal_is_the_error_that_the_runner_raised(error):
    runner = HandleRunner(Handle(encode_failure(error.as_failure())))
    with pytest.raises(type(error)) as refused:
        await runner.start(ASKED)
    assert refused.value.as_failure() == error.as_failure()


@pytest.mark.parametrize(
    ("raised", "error"),
    [(RayActorError(), ReplicaLost), (BackPressureError(1, 1), Overloaded)],
)
async def test_a_runner_that_cannot_answer(raised, error):
    with pytest.raises(error):
        await HandleRunner(Handle(raised)).resume("acme", "run-1", 9.0)


async def test_a_runner_on_demand_is_ready_without_being_asked():
    handle = Handle(b"1")
    assert await HandleRunner(handle, on_demand=True).ready()
    assert handle.calls == []
    assert await HandleRunner(handle).ready()
    assert len(handle.calls) == 1
