"""Graphs behind the gateway: a run's events, and a graph spoken to as if it were a chat model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from cluster.errors import ReplicaLost
from cluster.interface import Batch
from cluster.messages import Delta, Finish, Message
from runtime.events import NodeDelta, NodeFinished, RunFailed, RunFinished, RunResumed
from runtime.request import RunRequest
from runtime.runner import ChatBinding
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest, GatewayError
from serve_apps.gateway.failures import answer_to_failure
from serve_apps.gateway.following import run_events
from serve_apps.gateway.metering import RunMeter

_FINISH = Finish("stop")


async def reply_batches(
    gateway: Gateway, request: RunRequest, binding: ChatBinding, meter: RunMeter
) -> AsyncGenerator[Batch, None]:
    """The run as a model's reply: the deltas of the bound node, or its output in one piece.

    Raises `GatewayError` when the run fails, `ReplicaLost` when it goes on elsewhere and would say again what
    it has begun to say.
    """
    spoken = whole = False
    async with aclosing(run_events(gateway, request, meter)) as batches:
        async for batch in batches:
            reply: Batch = []
            for event in batch:
                match event:
                    case NodeDelta(node=binding.node, text=text):
                        reply.append(Delta(text))
                    case NodeFinished(node=binding.node):
                        whole = True
                    case RunResumed() if (spoken or reply) and not whole:
                        raise ReplicaLost("the runner of this graph died")
                    case RunFinished(outputs=outputs, usage=usage):
                        said = [] if spoken or reply else [Delta(as_text(outputs[binding.output]))]
                        reply += [*said, _FINISH, usage]
                    case RunFailed():
                        raise run_failure(event, request.run_id)
                    case _:
                        pass
            if reply:
                spoken = True
                yield reply


def run_failure(event: RunFailed, request_id: str) -> GatewayError:
    """What to tell the client of a run that failed."""
    answer = answer_to_failure(event.failure, request_id)
    if event.node is not None:
        answer.message = f"Node {event.node!r}: {answer.message}"
    return answer


def question_of(messages: list[Message]) -> tuple[str, list[Message]]:
    """The text of the last user message, and the messages before it. Raises `BadRequest`."""
    last = messages[-1]
    if last.role != "user":
        raise BadRequest("The last message to a graph must be the user's.", param="messages")
    if isinstance(last.content, str):
        return last.content, messages[:-1]
    parts = last.content or []
    if any(part["type"] != "text" for part in parts):
        raise BadRequest("A graph is asked in text.", param=f"messages[{len(messages) - 1}].content")
    return "\n".join(part["text"] for part in parts), messages[:-1]


def as_text(output: object) -> str:
    """An output of a graph as the text of a reply: itself, or its JSON."""
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()
