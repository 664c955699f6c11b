"""How long a node is likely to take, before anything was measured.

Only the proportions matter: they say which path through a graph is the long one. Taken from a 135M model on
two CPU cores (`benchmarks/`): prefill about 480 tokens a second, one stream about 12.
"""

from __future__ import annotations

from graphs.nodes.registry import AnySpec

PREFILL_S = 1 / 480
DECODE_S = 1 / 12
EMBED_S = 1 / 600
SEARCH_S = 0.001
CHEAP_S = 0.00001

TYPICAL_SHARE = 0.5
"""Of a bound of tokens that is used."""


def seconds(spec: AnySpec) -> float:
    """Estimated duration of one run of the node."""
    if spec.cheap:
        return CHEAP_S
    tasks = {use.task for use in spec.uses() if use.resource == "model"}
    if not tasks:
        return SEARCH_S
    per_prompt_token = PREFILL_S if "generate" in tasks else EMBED_S
    return TYPICAL_SHARE * (spec.tokens.prompt * per_prompt_token + spec.tokens.output * DECODE_S)
