"""What may be known of a graph before it runs: its description, and whether inputs fit it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from graphs.pipeline import Durability
from graphs.ports import Port, object_schema
from runtime.errors import InputProblem, InvalidInputs
from runtime.plan import ExecutionPlan

MAX_PROBLEMS = 20
"""Fields at fault that one refusal names."""
MAX_PROBLEM_CHARS = 200
MAX_NAME_CHARS = 64


class ChatBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a graph is talked to as if it were a chat model."""

    input: str
    """Takes the text of the user's message."""
    output: str
    """Is the reply."""
    node: str | None = None
    """Whose deltas are the reply, piece by piece; absent when the reply comes in one piece."""


class GraphInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gateway must know of a graph to validate, price and present it."""

    name: str
    version: str
    description: str
    inputs: dict[str, Any]
    """JSON Schema of the object of inputs: what `validate_inputs` takes."""
    outputs: dict[str, Any]
    """JSON Schema of the object of outputs."""
    plan_hash: str
    token_bound: int
    """Most tokens, of prompts and outputs together, that one run can use: to be reserved before it starts."""
    models: list[str]
    """Names of the pools that it calls."""
    reads_history: bool
    chat: ChatBinding | None = None
    durability: Durability = "none"
    """Of runs whose caller does not say."""


decode_infos = msgspec.msgpack.Decoder(list[GraphInfo]).decode


def info_of(plan: ExecutionPlan) -> GraphInfo:
    """What a gateway must know of a plan."""
    outputs = {name: Port(port_type) for name, port_type in plan.output_types.items()}
    chat = plan.chat
    return GraphInfo(
        name=plan.graph,
        version=plan.version,
        description=plan.description,
        inputs=object_schema(plan.inputs),
        outputs=object_schema(outputs),
        plan_hash=plan.hash,
        token_bound=plan.token_bound,
        models=list(plan.models),
        reads_history="sessionHistory" in plan.reads,
        chat=None if chat is None else ChatBinding(chat.input, chat.output, chat.node),
        durability=plan.policies.durability,
    )


def validate_inputs(schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with the defaults of `schema` (a `GraphInfo.inputs`) filled in.

    Raises `InvalidInputs`, which names every field at fault.
    """
    ports: dict[str, Any] = schema["properties"]
    problems = [InputProblem(name, "is required") for name in schema["required"] if name not in inputs]
    for name, value in islice(inputs.items(), MAX_PROBLEMS + len(ports)):
        if name in ports:
            problems += _problems_of(name, ports[name], value)
        else:
            problems.append(InputProblem(name[:MAX_NAME_CHARS], _unknown(name, ports)))
    if problems:
        raise InvalidInputs(problems[:MAX_PROBLEMS])
    defaults = {name: port["default"] for name, port in ports.items() if "default" in port}
    return defaults | dict(inputs)


def _problems_of(name: str, schema: Mapping[str, Any], value: object) -> Iterator[InputProblem]:
    for error in islice(Draft202012Validator(schema).iter_errors(value), MAX_PROBLEMS):
        field = ".".join([name, *(str(part) for part in error.absolute_path)])
        yield InputProblem(field, error.message[:MAX_PROBLEM_CHARS])


def _unknown(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:MAX_NAME_CHARS], known, n=1)
    return "is not an input of this graph" + (f"; did you mean {near[0]}?" if near else "")
