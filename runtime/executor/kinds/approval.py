"""`approval`: puts a question to a person and waits for what is said."""

from __future__ import annotations

import time

import msgspec

from graphs.nodes.approval import Approval
from runtime.approvals.model import Asked
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values

BEGAN = "asked"
"""Under which it is kept when the question was put: whoever goes on with the run puts the same again."""


def prepare(spec: Approval, resources: Resources) -> Perform:
    approvals = resources.approvals

    async def perform(call: NodeCall, inputs: Values) -> Values:
        if approvals is None:
            raise NodeError("nobody can be asked: this runner keeps no approvals")
        value = msgspec.to_builtins(inputs["value"])
        began: float = call.kept(BEGAN) or time.time()
        asked = Asked(call.node, spec.message, value, began, call.asks_until, call.graph)
        call.keep(BEGAN, began)

        def told() -> None:
            call.waiting(spec.message)

        answer = await approvals.wait(call.tenant, call.run_id, asked, told, lambda: call.leaving)
        return {"value": answer.value, "approved": answer.approved, "comment": answer.comment}

    return perform
