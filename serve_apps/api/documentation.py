"""The OpenAPI document: FastAPI's, with the raw routes and the schemas of all bodies added.

The schemas come from the very structs that the routes decode and encode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from runtime.context.model import Context
from serve_apps.api.admin.described import ADMIN_ROUTES
from serve_apps.api.anthropic_models import PAGE_PARAMETERS, AnthropicModel, AnthropicModelPage
from serve_apps.api.approvals import ApprovalAnswer, ApprovalBody, ApprovalList
from serve_apps.api.contexts import ContextDeleted
from serve_apps.api.described import CALL_ERRORS, READ_ERRORS, AnthropicError, Described, ErrorBody
from serve_apps.api.examples import EXAMPLES
from serve_apps.api.graphs import GraphList, GraphObject, RunBody
from serve_apps.api.health import Health, ReadinessReport
from serve_apps.api.inline import InlineBody
from serve_apps.api.models import ModelList, ModelObject
from serve_apps.api.responses import ITEMS_PARAMETERS
from serve_apps.api.run_actions import EVENTS_PARAMETERS, ForkBody, ResumeBody
from serve_apps.api.run_answers import RunAccepted, RunAnswer
from serve_apps.api.runs import LIST_PARAMETERS, RUN_PARAMETERS, CancelAnswer, RunList, RunWithOutputs
from serve_apps.api.tasks import TaskList
from serve_apps.api.tokenize import DetokenizeBody, Detokenized, TokenizeBody, Tokenized
from serve_apps.api.usage import USAGE_PARAMETERS, UsageReport
from serve_apps.translators.anthropic import CountBody, MessagesBody
from serve_apps.translators.anthropic_replies import AnthropicMessage, TokenCount
from serve_apps.translators.openai import ChatBody, CompletionBody, EmbeddingBody
from serve_apps.translators.openai_replies import ChatCompletion, Completion, EmbeddingList
from serve_apps.translators.responses import ResponseBody
from serve_apps.translators.responses_replies import InputItems, ResponseDeleted, ResponseObject

VERSION = version("cluster-graph-hybrid")
DESCRIPTION = """Models and graphs of models, in the dialects of OpenAI and Anthropic. Point their SDKs here.

Every request but the health checks needs `Authorization: Bearer KEY` or `x-api-key: KEY`. It may bound
its own time with `x-request-timeout` (seconds). One that spends tokens may carry an `Idempotency-Key`:
sent again with the same key it is not done again, and has the same answer. Answers carry `x-request-id`,
and calls that cost quota `x-ratelimit-*`. A call that names a `contextId` continues the conversation kept
under it; the answer says the new version, in `x-context-version` or, streamed, in the chunk with the
finish reason.
"""

_IN_ANTHROPIC: Mapping[str, Any] = {
    "name": "anthropic-version",
    "in": "header",
    "description": "Sent by Anthropic's SDKs; the answer is then in its shape.",
    "schema": {"type": "string", "example": "2023-06-01"},
}
_PARAMETER = re.compile(r"\{(\w+)\}")
_COMPONENTS = "#/components/schemas/"


_ACCEPTED: Mapping[str, Any] = {
    "description": "The run goes on by itself, or waits for people",
    "headers": {"Location": {"schema": {"type": "string"}, "description": "Where to look for the run"}},
    "content": {"application/json": {"schema": {"$ref": f"{_COMPONENTS}{RunAccepted.__name__}"}}},
}

TAGS: Mapping[str, str] = {
    "openai": "What OpenAI's SDKs call.",
    "anthropic": "What Anthropic's SDKs call.",
    "models": "What may be called.",
    "tokens": "What a text comes to, for a model.",
    "tasks": "Graphs under the name of what they are for.",
    "graphs": "Graphs as REST endpoints.",
    "runs": "What became of runs, and what can be done with them.",
    "contexts": "Conversations that the gateway keeps.",
    "usage": "What was used, and what it cost.",
    "admin": "Organisations, teams, keys and what was done to them.",
    "health": "For load balancers and operators.",
}
"""In the order in which they are shown."""

_EVENT: Mapping[str, Any] = {
    "type": "object",
    "description": "One event of the stream; `data` is JSON.",
    "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
}

ROUTES: dict[tuple[str, str], Described] = {
    ("/v1/chat/completions", "post"): Described(
        "Chat with a model, or with a graph as graph/NAME",
        ChatCompletion,
        ChatBody,
        "openai",
        True,
        CALL_ERRORS,
    ),
    ("/v1/completions", "post"): Described(
        "Complete a prompt", Completion, CompletionBody, "openai", True, CALL_ERRORS
    ),
    ("/v1/embeddings", "post"): Described(
        "Embed texts", EmbeddingList, EmbeddingBody, "openai", False, CALL_ERRORS
    ),
    ("/v1/responses", "post"): Described(
        "Have a model or graph respond, and keep the response to continue it",
        ResponseObject,
        ResponseBody,
        "openai",
        True,
        CALL_ERRORS,
    ),
    ("/v1/responses/{response_id}", "get"): Described("A kept response", ResponseObject, errors=READ_ERRORS),
    ("/v1/responses/{response_id}", "delete"): Described(
        "Forget a response", ResponseDeleted, errors=READ_ERRORS
    ),
    ("/v1/responses/{response_id}/input_items", "get"): Described(
        "The input of a kept response", InputItems, errors=READ_ERRORS, query=ITEMS_PARAMETERS
    ),
    ("/v1/responses/{response_id}/cancel", "post"): Described(
        "Refused: no response is made in the background", None, errors=READ_ERRORS
    ),
    ("/v1/messages", "post"): Described(
        "Chat with a model, or with a graph as graph/NAME, in Anthropic's dialect",
        AnthropicMessage,
        MessagesBody,
        "anthropic",
        True,
        CALL_ERRORS,
        failure=AnthropicError,
    ),
    ("/v1/messages/count_tokens", "post"): Described(
        "Count the tokens of a prompt, exactly",
        TokenCount,
        CountBody,
        "anthropic",
        False,
        CALL_ERRORS,
        failure=AnthropicError,
    ),
    ("/v1/tokenize", "post"): Described(
        "Turn a prompt or messages into the tokens that the model reads",
        Tokenized,
        TokenizeBody,
        "tokens",
        False,
        CALL_ERRORS,
    ),
    ("/v1/detokenize", "post"): Described(
        "Turn tokens back into text", Detokenized, DetokenizeBody, "tokens", False, CALL_ERRORS
    ),
    ("/ai/{task}", "post"): Described(
        "Have a task done: the body is the inputs that GET /ai tells of",
        RunAnswer,
        dict,
        "tasks",
        True,
        (*CALL_ERRORS, 409),
        accepts=True,
    ),
    ("/ai", "get"): Described("The tasks this key may use", TaskList, errors=READ_ERRORS),
    ("/v1/graphs/{name}/runs", "post"): Described(
        "Run a graph", RunAnswer, RunBody, "graphs", True, (*CALL_ERRORS, 409), accepts=True
    ),
    ("/v1/graphs", "get"): Described("The graphs this key may run", GraphList, errors=READ_ERRORS),
    ("/v1/graphs/{name}", "get"): Described("One graph", GraphObject, errors=READ_ERRORS),
    ("/v1/runs", "post"): Described(
        "Run a pipeline that comes with the call",
        RunAnswer,
        InlineBody,
        "runs",
        True,
        (*CALL_ERRORS, 409),
        accepts=True,
    ),
    ("/v1/runs", "get"): Described(
        "The runs of the last while, the newest first",
        RunList,
        errors=READ_ERRORS,
        query=LIST_PARAMETERS,
    ),
    ("/v1/runs/{run_id}", "get"): Described(
        "One run, with its nodes", RunWithOutputs, errors=(409, *READ_ERRORS), query=RUN_PARAMETERS
    ),
    ("/v1/runs/{run_id}/events", "get"): Described(
        "The events of a run that keeps them, from any number on",
        None,
        None,
        "runs",
        True,
        (408, 409, *READ_ERRORS),
        EVENTS_PARAMETERS,
    ),
    ("/v1/runs/{run_id}/cancel", "post"): Described("End a run", CancelAnswer, errors=READ_ERRORS),
    ("/v1/runs/{run_id}/resume", "post"): Described(
        "Go on with a run that has failed, was cancelled or is suspended",
        None,
        ResumeBody,
        "runs",
        True,
        (*CALL_ERRORS, 409),
        accepts=True,
    ),
    ("/v1/runs/{run_id}/fork", "post"): Described(
        "Run again from a node on, with other outputs of it or other inputs",
        RunAnswer,
        ForkBody,
        "runs",
        True,
        (*CALL_ERRORS, 409),
        accepts=True,
    ),
    ("/v1/runs/{run_id}/approvals", "get"): Described(
        "What a run asks of people", ApprovalList, errors=READ_ERRORS
    ),
    ("/v1/runs/{run_id}/approvals/{node}", "post"): Described(
        "Decide for a run that waits", ApprovalAnswer, ApprovalBody, errors=(409, 413, *READ_ERRORS)
    ),
    ("/v1/models", "get"): Described(
        "The models and graphs this key may call",
        ModelList,
        errors=READ_ERRORS,
        query=PAGE_PARAMETERS,
        in_anthropic=AnthropicModelPage,
    ),
    ("/v1/models/{model}", "get"): Described(
        "One model", ModelObject, errors=READ_ERRORS, in_anthropic=AnthropicModel
    ),
    ("/v1/contexts/{context_id}", "get"): Described("A kept conversation", Context, errors=READ_ERRORS),
    ("/v1/contexts/{context_id}", "delete"): Described(
        "Forget a conversation", ContextDeleted, errors=READ_ERRORS
    ),
    ("/v1/usage", "get"): Described(
        "What was used, and what it cost",
        UsageReport,
        errors=READ_ERRORS,
        query=USAGE_PARAMETERS,
    ),
    **ADMIN_ROUTES,
    ("/healthz", "get"): Described("Whether this process lives", Health),
    ("/readyz", "get"): Described("Whether everything behind it can answer", ReadinessReport),
}


def document_of(api: FastAPI) -> dict[str, Any]:
    """The document of every route."""
    document = get_openapi(
        title=api.title, version=api.version, description=api.description, routes=api.routes
    )
    kinds = {
        ErrorBody,
        AnthropicError,
        RunAccepted,
        *(
            kind
            for route in ROUTES.values()
            for kind in (route.answer, route.body, route.in_anthropic)
            if kind not in (None, dict)
        ),
    }
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_COMPONENTS + "{name}")
    components = document.setdefault("components", {})
    components["schemas"] = schemas
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found: dict[str, Any] = document["paths"]
    paths: dict[str, Any] = {}
    for (path, method), route in ROUTES.items():
        operation = found.get(path, {}).get(method, {})
        paths.setdefault(path, {})[method] = operation | _operation(path, route)
    document["paths"] = paths
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return document


def _operation(path: str, route: Described) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if route.answer is not None:
        answer["application/json"] = {"schema": _either(route.answer, route.in_anthropic)}
    if route.streams:
        answer["text/event-stream"] = {"schema": _EVENT}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {
            str(route.status): {"description": "Success", "content": answer},
            **{str(status): _error(status, _failure(route)) for status in route.errors},
        },
    }
    if route.accepts:
        operation["responses"]["202"] = _ACCEPTED
    if route.errors:
        operation["security"] = [{"key": []}]
    if route.tag:
        operation["tags"] = [route.tag]
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
        if example := EXAMPLES.get(route.body):
            operation["requestBody"]["content"]["application/json"]["example"] = example
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": schema} for name, schema in route.query.items()
    ]
    if route.in_anthropic is not None:
        parameters.append(dict(_IN_ANTHROPIC))
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    if parameters:
        operation["parameters"] = parameters
    return operation


def _reference(kind: type[Any]) -> dict[str, Any]:
    return {"type": "object"} if kind is dict else {"$ref": _COMPONENTS + kind.__name__}


def _either(kind: type[Any], other: type[Any] | None) -> dict[str, Any]:
    return _reference(kind) if other is None else {"anyOf": [_reference(kind), _reference(other)]}


def _failure(route: Described) -> dict[str, Any]:
    return _either(route.failure, None if route.in_anthropic is None else AnthropicError)


def _error(status: int, failure: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "Error", "content": {"application/json": {"schema": failure}}}
    if status in (429, 503):
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return described
