"""A model chooses one of several names by their descriptions: what `classify` and `router` have in common.

a pool that generates   one chat call, held to the names by a JSON schema
a pool that embeds      the description nearest to the text; those are embedded once, with the first text
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.errors import EngineFailed
from cluster.interface import Pool
from cluster.messages import Embed, Generate, Message, Sampling
from graphs.errors import word_pattern
from graphs.nodes.choices import ANSWER_FIELD, choice_bound
from runtime.executor.kinds.chat import ask
from runtime.executor.kinds.embed import vectors_of
from runtime.executor.kinds.kind import NodeCall
from runtime.executor.kinds.likely import Likely

_ALL = "the text with the descriptions"
"""What a bound counts."""


class Choice(NamedTuple):
    name: str
    confidence: float | None
    """Cosine similarity to the description, from -1 to 1; None where a model that generates has chosen."""


Choose = Callable[[NodeCall, str], Awaitable[Choice]]
"""Of a text. Raises `InvalidCall` for a text that is too long, and other `ClusterError`s of the pool."""


def chooser(pool: Pool, choices: Mapping[str, str], max_prompt_tokens: int) -> Choose:
    """How to choose. `max_prompt_tokens` bounds text and descriptions together."""
    if pool.info.task == "embed":
        return _Nearest(pool, choices, max_prompt_tokens)
    return _Asked(pool, choices, max_prompt_tokens)


class _Asked:
    """Asks a model that generates."""

    def __init__(self, pool: Pool, choices: Mapping[str, str], max_prompt_tokens: int) -> None:
        self._pool = pool
        self._names = list(choices)
        self._bound = choice_bound(max_prompt_tokens, choices)
        self._likely = Likely()
        self._system = Message("system", _instructions(choices))
        # Temperature 0: the likeliest name, the same each time.
        self._sampling = Sampling(temperature=0.0, response_format=_response_format(self._names))

    async def __call__(self, call: NodeCall, text: str) -> Choice:
        request = Generate(
            request_id=call.request_id,
            model=self._pool.info.name,
            max_tokens=self._bound.output,
            deadline=call.deadline,
            messages=[self._system, Message("user", text)],
            sampling=self._sampling,
            tenant=call.tenant,
            priority=call.priority,
        )
        [answer] = await ask(self._pool, request, call, self._bound.prompt, self._likely, _ALL)
        return Choice(_chosen(answer.text, self._names), None)


class _Nearest:
    """Compares vectors."""

    def __init__(self, pool: Pool, choices: Mapping[str, str], max_prompt_tokens: int) -> None:
        self._pool = pool
        self._names = list(choices)
        self._descriptions = list(choices.values())
        self._description_tokens = pool.count_tokens(
            Embed("choices", pool.info.name, self._descriptions, deadline=0.0)
        )
        self._max_prompt_tokens = max_prompt_tokens
        self._vectors: NDArray[np.float32] | None = None
        """Of the descriptions, once they are known."""

    async def __call__(self, call: NodeCall, text: str) -> Choice:
        known = self._vectors
        vector, *others = await vectors_of(
            self._pool,
            call,
            [text] if known is not None else [text, *self._descriptions],
            self._max_prompt_tokens,
            _ALL,
            beside=0 if known is None else self._description_tokens,
        )
        if known is None:
            known = self._vectors = np.asarray(others, dtype=np.float32)
        similarities = known @ np.asarray(vector, dtype=np.float32)
        best = int(similarities.argmax())
        return Choice(self._names[best], round(float(similarities[best]), 6))


class _Answer(msgspec.Struct):
    choice: str


def _instructions(choices: Mapping[str, str]) -> str:
    lines = "\n".join(f"- {name}: {description}" for name, description in choices.items())
    return (
        f'Choose what fits the text of the user best. Answer with JSON: {{"{ANSWER_FIELD}": "..."}}\n'
        f"You can choose from:\n{lines}"
    )


def _response_format(names: Sequence[str]) -> dict[str, object]:
    schema = {
        "type": "object",
        "properties": {ANSWER_FIELD: {"type": "string", "enum": list(names)}},
        "required": [ANSWER_FIELD],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": ANSWER_FIELD, "schema": schema, "strict": True}}


def _chosen(reply: str, names: Iterable[str]) -> str:
    """The name in a reply; of a provider that keeps to no schema, the only one that it mentions."""
    try:
        said = msgspec.json.decode(reply, type=_Answer).choice
    except msgspec.DecodeError:
        said = reply
    mentioned = [name for name in names if name == said]
    mentioned = mentioned or [name for name in names if re.search(word_pattern(name), said, re.IGNORECASE)]
    if len(mentioned) != 1:
        raise EngineFailed("the model chose none of the names that it was given")
    return mentioned[0]
