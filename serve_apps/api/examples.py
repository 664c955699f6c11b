"""Bodies to try in `/docs`: they work on the system that `make serve` starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serve_apps.api.graphs import RunBody
from serve_apps.api.inline import InlineBody
from serve_apps.translators.openai import ChatBody, CompletionBody, EmbeddingBody
from serve_apps.translators.responses import ResponseBody

_PIPELINE: Final[Mapping[str, Any]] = {
    "apiVersion": "clustergraph/v1",
    "kind": "Pipeline",
    "metadata": {"name": "hello", "version": "1.0.0"},
    "inputs": {"question": "string"},
    "nodes": {
        "say": {
            "llm": {
                "model": "smollm2",
                "prompt": "Answer in one word: {{ question }}",
                "max_tokens": 20,
                "max_prompt_tokens": 100,
            },
            "with": {"question": "${inputs.question}"},
        }
    },
    "outputs": {"text": "${say.text}"},
}

EXAMPLES: Final[Mapping[type[Any], Mapping[str, Any]]] = {
    ChatBody: {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 40,
    },
    CompletionBody: {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 20},
    EmbeddingBody: {"model": "minilm", "input": ["first text", "second text"]},
    ResponseBody: {"model": "smollm2", "input": "What is the capital of France?", "max_output_tokens": 40},
    RunBody: {"inputs": {"question": "How do I create an API key?"}},
    InlineBody: {"pipeline": _PIPELINE, "inputs": {"question": "Is water wet?"}},
}
"""By the struct that decodes the body."""
