"""What a `guardrail` node says of itself."""

import msgspec
import pytest

from graphs.nodes.guardrail import Guardrail
from graphs.nodes.registry import AnySpec
from graphs.ports import BOOLEAN, STRING, list_of


def test_what_it_is():
    spec = Guardrail()
    assert spec.outputs({}) == {"text": STRING, "flagged": BOOLEAN, "findings": list_of(STRING)}
    assert spec.cheap
    assert spec.effects == "pure"
    assert len(spec.pii) == 5
    assert spec.stand_in("No.") == {"text": "No.", "flagged": True, "findings": []}


@pytest.mark.parametrize(
    "settings",
    [{"pii": ["name"]}, {"words": [""]}, {"action": "drop"}, {"max_chars": 0}, {"max_chars": 10**7}],
)
def test_settings_out_of_bounds(settings):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "guardrail", **settings}, AnySpec)
