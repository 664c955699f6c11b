"""Remote endpoints as pools, whatever dialect they speak."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.config import AnthropicSpec, OpenAISpec, RemoteSpec
from cluster.interface import ModelInfo, Pool
from cluster.providers.anthropic import AnthropicPool
from cluster.providers.openai import OpenAIPool
from cluster.tokens import TokenCounter


def remote_pool(
    spec: RemoteSpec, info: ModelInfo, counter: TokenCounter, environment: Mapping[str, str]
) -> Pool:
    """The pool of a remote model. Raises `ConfigError` where its key is missing."""
    match spec:
        case OpenAISpec():
            return OpenAIPool(spec, info, counter, environment)
        case AnthropicSpec():
            return AnthropicPool(spec, info, counter, environment)
    raise TypeError(f"no pool speaks to {type(spec).__name__}")
