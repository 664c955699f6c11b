"""How long nodes are likely to take and what they ask of the models, before anything was measured.

Only the proportions matter: they say which path through a graph is the long one, and how load on a graph
becomes load on pools. Taken from a 135M model on two CPU cores (`benchmarks/`): prefill about 480 tokens a
second, one stream about 12.

    map (8 items, 4 at a time)     body: ask ─► answer 6 s     it takes 12 s and asks the model 8 times
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from graphs.bindings import Literal
from graphs.nodes.map import BODY, Map
from graphs.nodes.spec import NodeSpec, TokenBound
from runtime.compiler.draft import DraftNode, Scope
from runtime.plan import Demand

PREFILL_S = 1 / 480
DECODE_S = 1 / 12
EMBED_S = 1 / 600
SEARCH_S = 0.001
REQUEST_S = 0.2
"""To a web server."""
CHEAP_S = 0.00001

TYPICAL_SHARE = 0.5
"""Of a bound of tokens that is used."""
LIKELY = 0.5
"""How often a condition holds."""


def seconds(node: DraftNode, lengths: Mapping[str, float]) -> float:
    """Estimated duration of one run of the node, from those of its bodies."""
    visits = visits_of(node)
    own = _own_seconds(node.spec)
    if isinstance(node.spec, Map):
        (length,) = lengths.values()
        return own + math.ceil(visits[BODY] / node.spec.max_concurrency) * length
    if sum(visits.values()) <= 1:
        return own + max(lengths.values(), default=0.0)
    return own + sum(visits[key] * length for key, length in lengths.items())


def visits_of(node: DraftNode) -> Mapping[str, float]:
    """How often each body is expected to run in one run of the node."""
    items = node.inputs.get("over")
    if isinstance(node.spec, Map) and isinstance(items, Literal) and isinstance(items.value, list):
        return {BODY: float(len(items.value))}
    return node.spec.visits(tuple(node.bodies))


def bound_of(node: DraftNode) -> TokenBound:
    """Most tokens of one run of the node, with every attempt and every model that takes its place."""
    inner = {
        key: sum((bound_of(each) for each in body.nodes.values()), TokenBound())
        for key, body in node.bodies.items()
    }
    lost = sum((inner[key] for key in node.ahead), TokenBound())
    attempts = 1 if node.retry is None else node.retry.attempts
    others = sum(other.model is not None for other in node.fallback)
    own = node.spec.bound({key: bound for key, bound in inner.items() if key not in node.ahead})
    return (own + lost).times(attempts + others)


def demand_of(scope: Scope) -> dict[str, Demand]:
    """What one run is expected to ask of each model, by its name."""
    total: dict[str, Demand] = {}
    for model, demand in _demands(scope, 1.0):
        before = total.get(model, Demand())
        total[model] = Demand(
            before.visits + demand.visits,
            before.prompt_tokens + demand.prompt_tokens,
            before.output_tokens + demand.output_tokens,
        )
    return {model: total[model] for model in sorted(total)}


def _demands(scope: Scope, runs: float) -> Iterator[tuple[str, Demand]]:
    for node in scope.nodes.values():
        times = runs if node.when is None else runs * LIKELY
        visits = visits_of(node)
        model = next((use.name for use in node.spec.uses() if use.resource == "model"), None)
        if model is not None:
            tokens, share = node.spec.tokens, TYPICAL_SHARE * times
            calls = times * max(1.0, sum(visits.values()))
            yield model, Demand(calls, share * tokens.prompt, share * tokens.output)
        for key, body in node.bodies.items():
            yield from _demands(body, times * visits[key])


def _own_seconds(spec: NodeSpec) -> float:
    """Without what its bodies take."""
    if spec.cheap:
        return CHEAP_S
    tasks = {use.task for use in spec.uses() if use.resource == "model"}
    if not tasks:
        return REQUEST_S if any(use.resource == "host" for use in spec.uses()) else SEARCH_S
    per_prompt_token = PREFILL_S if "generate" in tasks else EMBED_S
    return TYPICAL_SHARE * (spec.tokens.prompt * per_prompt_token + spec.tokens.output * DECODE_S)
