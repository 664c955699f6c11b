"""What a `rerank` node says of itself."""

from cluster.interface import ModelInfo
from graphs.builder import Builder
from graphs.nodes.rerank import Rerank
from graphs.nodes.spec import TokenBound
from graphs.ports import DOCUMENT, STRING, list_of
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline


def test_what_it_is():
    spec = Rerank(model="m", max_prompt_tokens=50)
    assert spec.outputs({}) == {"documents": list_of(DOCUMENT)}
    assert spec.inputs()["documents"].type == list_of(DOCUMENT)
    assert spec.effects == "pure"
    assert spec.tokens == TokenBound(50, 0)
    assert spec.stand_in([]) == {"documents": []}


def test_all_documents_together_may_be_more_than_the_model_takes_at_once():
    b = Builder("ranked")
    query, documents = b.input("q", STRING), b.input("d", list_of(DOCUMENT))
    b.output("d", b.add("rank", Rerank(model="m"), query=query, documents=documents)["documents"])
    plan = compile_pipeline(b.build(), Catalog({"m": ModelInfo("m", "embed", 512, 1)}, {}))
    assert plan.token_bound == 4096
    assert plan.steps[0].pool == "m"
