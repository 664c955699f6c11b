"""`POST /v1/runs`, as a raw ASGI endpoint: a run of a pipeline that comes with the call."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.errors import ModelUnavailable
from runtime.request import RunRequest
from runtime.runner import validate_inputs
from serve_apps.api.launch import RunOptions, launch
from serve_apps.gateway.deps import Request
from serve_apps.gateway.routing import wait_for_models
from serve_apps.translators.decoding import BodyDecoder, check_free_form


class InlineBody(RunOptions, frozen=True, kw_only=True):
    """`POST /v1/runs`."""

    pipeline: str | dict[str, Any]
    """What a pipeline file says: as text, YAML or JSON, or as an object."""
    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    """By name, as the pipeline's `inputs` say."""


_decode_body = BodyDecoder(InlineBody).decode


async def run_inline(request: Request) -> None:
    gateway, exchange, caller = request
    body = _decode_body(await exchange.body(gateway.settings.max_body_bytes))
    check_free_form(body.inputs, "inputs")
    if gateway.inline is None:
        raise ModelUnavailable("no runner is deployed")
    made = await gateway.inline.compiled(caller, body.pipeline)
    inputs = validate_inputs(made.info.inputs, body.inputs)
    wait_for_models(gateway, made.info.models)
    run = RunRequest(
        run_id=exchange.id,
        graph=made.info.name,
        inputs=inputs,
        deadline=exchange.deadline,
        tenant=caller.tenant,
        plan=made.plan,
    )
    await launch(request, run, made.info, body)
