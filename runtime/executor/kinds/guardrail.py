"""`guardrail`: what is found in the text is replaced, told of or refused."""

from __future__ import annotations

from graphs.nodes.guardrail import Guardrail
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, Resources, Values
from runtime.guardrails.detect import Detector, redact

TOO_LONG = "too_long"
"""The finding that a text has more characters than it may."""


def prepare(spec: Guardrail, _resources: Resources) -> Evaluate:
    detect = Detector(spec.pii, spec.words)

    def evaluate(inputs: Values) -> Values:
        text: str = inputs["text"]
        head = text[: spec.max_chars]
        found = detect(head)
        kinds = sorted({finding.kind for finding in found})
        if len(head) < len(text):
            kinds.append(TOO_LONG)
        if kinds and spec.action == "refuse":
            raise NodeError(f"the text was refused: {', '.join(kinds)}", param="text")
        kept = redact(head, found) if spec.action == "redact" else text
        return {"text": kept, "flagged": bool(kinds), "findings": kinds}

    return evaluate
