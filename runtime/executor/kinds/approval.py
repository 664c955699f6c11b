"""`approval`: puts a question to a person and waits for what is said."""

from __future__ import annotations

import time

import msgspec

from graphs.nodes.approval import Approval
from runtime.approvals.model import Asked
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Approval, resources: Resources) -> Perform:
    approvals = resources.approvals

    async def perform(call: NodeCall, inputs: Values) -> Values:
        if approvals is None:
            raise NodeError("nobody can be asked: this runner keeps no approvals")
        value = msgspec.to_builtins(inputs["value"])
        asked = Asked(call.node, spec.message, value, time.time(), call.deadline, call.graph)

        def told() -> None:
            call.waiting(spec.message)

        answer = await approvals.wait(call.tenant, call.run_id, asked, told)
        return {"value": answer.value, "approved": answer.approved, "comment": answer.comment}

    return perform
