"""`llm`: one chat call to a generating pool, streamed where the node and the run both want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.messages import Generate, Message, Sampling
from graphs.answer_schema import read_schema
from graphs.nodes.llm import HISTORY, Llm
from graphs.templates import compile_template
from runtime.errors import NodeError
from runtime.executor.kinds.chat import Answer, as_message, ask
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.executor.kinds.prompt import rendered


def prepare(spec: Llm, resources: Resources) -> Perform:
    pool = resources.pools[spec.model]
    sampling = Sampling(
        temperature=spec.temperature,
        top_p=spec.top_p,
        seed=spec.seed,
        stop=list(spec.stop) or None,
        n=spec.n,
        response_format=None if spec.schema is None else response_format(spec.schema),
    )
    system = [] if spec.system is None else [Message("system", spec.system)]
    prompt_of = _prompt(spec)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        request = Generate(
            request_id=call.request_id,
            model=spec.model,
            max_tokens=spec.max_tokens,
            deadline=call.deadline,
            messages=[*system, *map(as_message, inputs[HISTORY]), Message("user", prompt_of(inputs))],
            sampling=sampling,
            stream=spec.stream and call.stream,
            tenant=call.tenant,
            priority=call.priority,
        )
        answers = await ask(pool, request, call, spec.max_prompt_tokens)
        return _outputs(spec, answers)

    return perform


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What holds an answer to a schema. Not `strict`: that is a subset which not every schema is in."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def decoded(answer: Answer, max_tokens: int) -> Any:
    """The JSON value that was written. Raises `NodeError` where it was cut off or is none."""
    if answer.reason == "length":
        raise NodeError(f"the answer was cut off at {max_tokens} tokens, before it was a whole value")
    try:
        return msgspec.json.decode(answer.text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NodeError(f"the answer is no JSON: {error}") from error


def _prompt(spec: Llm) -> Callable[[Values], str]:
    """The prompt: an input, or rendered from the inputs."""
    if spec.prompt is None:
        return lambda inputs: str(inputs["prompt"])
    template = compile_template(spec.prompt)
    return lambda inputs: rendered(template, inputs)


def _outputs(spec: Llm, answers: list[Answer]) -> Values:
    first = answers[0]
    outputs: Values = {"text": first.text, "finish_reason": first.reason}
    if spec.n > 1:
        outputs["texts"] = [answer.text for answer in answers]
    if spec.schema is not None:
        outputs["data"] = decoded(first, spec.max_tokens)
        misfit = read_schema(spec.schema).misfit(outputs["data"])
        if misfit is not None:
            raise NodeError(f"the answer does not fit the schema: {misfit}")
    return outputs
