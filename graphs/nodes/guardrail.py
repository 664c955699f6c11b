"""`guardrail`: checks a text for personal data, words and length, without a model.

    guardrail: {pii: [email, phone], words: [project x], action: redact}
    with: {text: "${answer.text}"}

What it finds is replaced, only told of, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec
from graphs.ports import BOOLEAN, STRING, Port, PortType, list_of

Pii = Literal["email", "phone", "credit_card", "iban", "ip_address"]
MAX_CHARS = 1_000_000


class Guardrail(NodeSpec, frozen=True, tag_field="kind", tag="guardrail"):
    summary: ClassVar[str] = "checks a text for personal data, words and length"
    cheap: ClassVar[bool] = True

    pii: tuple[Pii, ...] = ("email", "phone", "credit_card", "iban", "ip_address")
    """Personal data to look for."""
    words: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=256)] = ()
    """Words and phrases to look for, whole and in any case."""
    max_chars: Annotated[int, Meta(ge=1, le=MAX_CHARS)] = 100_000
    """Most characters. What is behind them is not looked at."""
    action: Literal["redact", "flag", "refuse"] = "redact"
    """`redact` puts the kind of what is found in its place, as `[email]`, and cuts a text that is too long;
    `flag` leaves the text as it is; `refuse` ends the node with an error."""

    def inputs(self) -> Mapping[str, Port]:
        return {"text": Port(STRING, description="what to check")}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING, "flagged": BOOLEAN, "findings": list_of(STRING)}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"text": value, "flagged": True, "findings": []}
