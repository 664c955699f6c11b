"""`llm`: one chat call to a generating pool, streamed where the node and the run both want it, and where a
node reads what it gives while it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.interface import Batch
from cluster.messages import Delta, Finish, Generate, Message, Sampling
from graphs.answer_schema import read_schema
from graphs.nodes.llm import HISTORY, SENTENCES, TEXTS, Llm
from graphs.sentences import Sentences
from graphs.templates import compile_template
from runtime.errors import NodeError
from runtime.executor.kinds.chat import Answer, as_message, ask
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.executor.kinds.likely import Likely
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
    likely = Likely()

    async def perform(call: NodeCall, inputs: Values) -> Values:
        heard = _Heard(spec, call)
        request = Generate(
            request_id=call.request_id,
            model=spec.model,
            max_tokens=spec.max_tokens,
            deadline=call.deadline,
            messages=[*system, *map(as_message, inputs[HISTORY]), Message("user", prompt_of(inputs))],
            sampling=sampling,
            stream=heard.wanted,
            tenant=call.tenant,
            priority=call.priority,
        )
        hear = heard if heard.wanted else None
        answers = await ask(pool, request, call, spec.max_prompt_tokens, likely, hear=hear)
        return _outputs(spec, answers)

    return perform


class _Heard:
    """Hands on what comes of a reply: its text to the run, sentences or whole answers to who follows them."""

    def __init__(self, spec: Llm, call: NodeCall) -> None:
        self._call = call
        self._said = spec.stream and call.stream
        self._sentences = Sentences() if call.follows(SENTENCES) else None
        self._texts = [""] * spec.n if call.follows(TEXTS) else []
        self._ended: set[int] = set()
        self._given = 0
        """Answers that were handed on: one after the other, however they come to their ends."""
        self.wanted = self._said or self._sentences is not None or bool(self._texts)

    async def __call__(self, batch: Batch) -> None:
        text = "".join(event.text for event in batch if isinstance(event, Delta))
        if self._said and text:
            await self._call.delta(text)
        if self._sentences is not None:
            for sentence in self._sentences.feed(text):
                await self._call.put(SENTENCES, sentence)
        if self._texts:
            await self._answers(batch)

    async def _answers(self, batch: Batch) -> None:
        for event in batch:
            if isinstance(event, Delta):
                self._texts[event.index] += event.text
            elif isinstance(event, Finish):
                self._ended.add(event.index)
        while self._given in self._ended:
            await self._call.put(TEXTS, self._texts[self._given])
            self._given += 1


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
        outputs[TEXTS] = [answer.text for answer in answers]
    if spec.schema is not None:
        outputs["data"] = decoded(first, spec.max_tokens)
        misfit = read_schema(spec.schema).misfit(outputs["data"])
        if misfit is not None:
            raise NodeError(f"the answer does not fit the schema: {misfit}")
    return outputs
