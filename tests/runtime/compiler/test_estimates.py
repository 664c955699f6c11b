"""How long nodes are taken to need, relative to each other."""

from graphs.nodes.embed import Embed
from graphs.nodes.guardrail import Guardrail
from graphs.nodes.http import Http
from graphs.nodes.llm import Llm
from graphs.nodes.retrieve import Retrieve
from runtime.compiler.draft import DraftNode
from runtime.compiler.estimates import seconds

FROM_SHORT_TO_LONG = [
    Guardrail(),
    Retrieve(index="i"),
    Http(url="https://example.com/"),
    Embed(model="m"),
    Llm(model="m"),
]


def test_what_takes_longer():
    lengths = [seconds(DraftNode(spec, {}), {}) for spec in FROM_SHORT_TO_LONG]
    assert lengths == sorted(set(lengths))
