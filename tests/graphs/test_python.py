"""Pipelines traced from Python: what they become, and what is refused where it is written."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from graphs.bindings import Items, Literal, Ref
from graphs.errors import PipelineError
from graphs.functions import FunctionRefused, function, spec_of
from graphs.known import Known
from graphs.loader import load
from graphs.nodes.agent import Agent
from graphs.nodes.llm import Llm
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.router import Router
from graphs.pipeline import Metadata, Pipeline, Retry
from graphs.ports import INTEGER, STRING, Port
from graphs.python import Choice, agent, branch, case, context, each, loop, pipeline, router, value
from graphs.writer import to_yaml
from tests.graphs.assistant import SMALL, answer_questions, shorten
from tests.graphs.sample_functions import shout, sizes, split

SAY = Prompt("{{ x }}")

EXPECTED = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: assistant, description: Answers}
inputs:
  question: string
  top_k: {type: integer, default: 4, minimum: 1, description: how many}
context: {reads: [sessionHistory]}
nodes:
  embed:
    embed: {model: minilm}
    with: {text: "${inputs.question}"}
    retry: {attempts: 2, on: [timeout]}
    timeout: 5s
    effects: idempotent
  search:
    retrieve: {index: manual}
    with: {embedding: "${embed.embedding}", top_k: "${inputs.top_k}"}
  map:
    map: {over: "${search.documents}", as: doc, max_concurrency: 2}
    llm: {model: small, prompt: "Sum up: {{ doc.text }} for {{ question }}"}
    with: {doc: "${doc}", question: "${inputs.question}"}
  branch:
    branch:
      - when: size(search.documents) > 0
        llm: {model: small, max_tokens: 32}
        with: {prompt: "${inputs.question}"}
        fallback: [{model: tiny}]
      - llm: {model: small, max_tokens: 32}
        with: {prompt: "${inputs.question}", history: "${context.sessionHistory}"}
  loop:
    loop:
      max_iterations: 3
      until: llm3.text == 'good' || state.iteration >= inputs.top_k
      nodes:
        llm2:
          llm: {model: small, prompt: "Better: {{ x }}"}
          with: {x: "${state.draft}"}
        llm3:
          llm: {model: small, prompt: "Judge: {{ x }}, {{ n }}"}
          with: {x: "${llm2.text}", n: "${state.iteration}"}
          after: [llm2]
      outputs: {draft: "${llm2.text}", mark: "${llm3.text}"}
    with: {draft: "${branch.text}"}
  router:
    router:
      model: small
      choices:
        short: {description: small talk, subgraph: {graph: shorten}, with: {text: "${loop.draft}"}}
        long:
          description: a real question
          nodes: {}
          outputs: {text: "${loop.draft}"}
    with: {text: "${inputs.question}"}
  agent:
    agent:
      model: small
      max_steps: 3
      tools:
        find:
          description: Finds passages.
          inputs: {query: string, most: {type: integer, default: 3}}
          nodes:
            embed2: {embed: {model: minilm}, with: {text: "${args.query}"}}
            retrieve:
              retrieve: {index: manual}
              with: {embedding: "${embed2.embedding}", top_k: "${args.most}"}
          outputs: {documents: "${retrieve.documents}"}
    with: {prompt: "${inputs.question}"}
  llm:
    llm: {model: small, max_tokens: 32}
    with: {prompt: "${agent.text}"}
    when: size(inputs.question) > 9
    fallback: [{value: none}]
  value: {value: ["${loop.mark}", "${inputs.question}", 1]}
outputs:
  text: ${router.text}
  notes: ${map.text}
  extra: {from: "${llm.text}", optional: true}
  list: ${value.value}
chat: {input: question, output: text}
"""


def traced(function: Any, **settings: Any) -> Pipeline:
    return pipeline(name="demo", **settings)(function)


def refused(function: Any) -> list[str]:
    with pytest.raises(PipelineError) as error:
        traced(function)
    return [problem.message for problem in error.value.problems if problem.severity == "error"]


def test_everything_is_as_in_yaml():
    known = Known({"shorten": shorten})
    assert answer_questions.nodes == load(EXPECTED, known=known).pipeline.nodes
    assert answer_questions.content_hash() == load(EXPECTED, known=known).pipeline.content_hash()
    assert [problem.message for problem in load(EXPECTED, known=known).warnings] == []


def test_what_the_writer_makes_of_it_is_the_same():
    again = load(to_yaml(answer_questions), known=Known({"shorten": shorten})).pipeline
    assert again.content_hash() == answer_questions.content_hash()


def test_name_and_description_come_from_the_function():
    assert shorten.metadata == Metadata("shorten", "1.0.0", "Shortens a text.")
    assert shorten.inputs == {"text": Port(STRING)}
    assert list(shorten.nodes) == ["ask", "llm"]
    assert shorten.policies.deadline_s == 30


def test_names_are_found_for_all_that_has_none():
    def same(doc: str) -> Any:
        first = SAY(x=doc)
        inner = each([1], lambda doc: SAY(x=[doc, doc.index, first.text]))
        return {"a": SAY(x="").named("prompt").text, "b": inner.text, "c": first.text}

    made = traced(same)
    assert list(made.nodes) == ["prompt2", "map", "prompt"]
    body = made.nodes["map"].bodies["body"]
    assert made.nodes["map"].spec == Map(as_="doc")
    assert list(body.nodes) == ["each"]
    given = body.nodes["each"].inputs["x"]
    assert given == Items((Ref("doc", "value"), Ref("doc", "index"), Ref("prompt2", "text")))


def test_what_an_item_is_called_differs_from_what_is_around_it():
    def nested(lists: list[list[int]]) -> Any:
        return {"o": each(lists, lambda item: each(item, lambda item: SAY(x=item))).text}

    outer = traced(nested).nodes["map"]
    (inner,) = outer.bodies["body"].nodes.values()
    assert (outer.spec.as_, inner.spec.as_) == ("item", "item2")
    assert inner.inputs == {"over": Ref("item", "value")}


def test_names_of_conditions_follow():
    def looped(text: str) -> Any:
        SAY(x=text).named("state")
        last = loop(
            {"n": 0}, lambda state: {"n": value(state.iteration)}, max_iterations=2, until="state.n > n"
        )
        return {"o": last.n}

    body = traced(looped).nodes["loop"].bodies["body"]
    assert traced(looped).nodes["loop"].spec.as_ == "state2"
    assert body.until == "state2.n > step.value"


def test_policies_of_a_node():
    def bound(text: str) -> Any:
        first = SMALL(prompt=text).named("a").retry().timeout(2).effects("idempotent")
        second = SMALL(prompt=text).after(first).fallback(model="tiny").fallback(value="x")
        return {"a": first.text, "b": second.text}

    first, second = traced(bound).nodes.values()
    assert (first.retry, first.timeout_s, first.effects) == (Retry(), 2.0, "idempotent")
    assert [fallback.model for fallback in second.fallback] == ["tiny", None]
    assert second.fallback[1].value == "x"
    assert second.after == ("a",)


def test_a_kind_with_its_settings_is_used_as_often_as_one_likes():
    def twice(text: str) -> Any:
        return {"o": SMALL(prompt=SMALL(prompt=text).text).text}

    first, second = traced(twice).nodes.values()
    assert first.spec == second.spec == SMALL
    assert second.inputs == {"prompt": Ref("llm", "text")}


def test_what_is_no_reference_becomes_a_value():
    made = traced(lambda: {"o": [1, {"a": None}]})
    assert made.nodes["value"].inputs == {"value": Literal([1, {"a": None}])}


def test_a_single_reference_is_an_output_by_its_port():
    assert list(traced(lambda: SAY(x="a").text).outputs) == ["text"]


class TestFunctions:
    def test_that_are_marked_become_nodes(self):
        def loud(question: str) -> Any:
            said = shout(question, times=2)
            both = split(text=said)
            return {
                "head": both.head,
                "rest": shout(text="a " + shout("b"), times=3),
                "x": SAY(x=[said]).text,
            }

        nodes = traced(loud).nodes
        assert nodes["function"].spec == spec_of("tests.graphs.sample_functions:shout")
        assert nodes["function"].inputs == {"text": Ref("inputs", "question"), "times": Literal(2)}
        assert nodes["function2"].inputs == {"text": Ref("function", "value")}
        assert nodes["value"].inputs == {"value": Literal("A B!!!!")}
        assert nodes["prompt"].inputs == {"x": Items((Ref("function", "value"),))}
        again = load(to_yaml(traced(loud))).pipeline
        assert again.content_hash() == traced(loud).content_hash()

    def test_that_take_batches_are_called_with_single_items(self):
        def measured(question: str) -> Any:
            return {"size": sizes(texts=question)}  # type: ignore[arg-type]

        made = traced(measured)
        assert made.nodes["function"].inputs == {"texts": Ref("inputs", "question")}
        assert made.nodes["function"].spec.outputs({}) == {"value": INTEGER}
        assert load(to_yaml(made)).pipeline.content_hash() == made.content_hash()

    def test_give_nodes_that_have_no_value(self):
        with pytest.raises(TypeError, match="<function> has no value before the pipeline runs"):
            pipeline(name="demo")(typed(lambda text: {"o": "a" if shout(text) else "b"}))

    def test_take_what_their_parameters_say(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'loud'"):
            pipeline(name="demo")(typed(lambda text: {"o": shout(text, loud=3)}))

    def test_inside_of_functions_cannot_be_named(self):
        @function
        def inner(text: str) -> str:
            return text

        with pytest.raises(FunctionRefused, match="is not at the top of its module"):
            pipeline(name="demo")(typed(lambda text: {"o": inner(text)}))


class TestReferences:
    @pytest.mark.parametrize(
        "use",
        [
            lambda ref: f"Answer {ref}",
            lambda ref: str(ref),
            lambda ref: "a" if ref else "b",
            lambda ref: ref == "x",
            lambda ref: ref + 1,
            lambda ref: list(ref),
            lambda ref: ref[0],
            lambda ref: len(ref),
            lambda ref: ref > 3,
        ],
    )
    def test_have_no_value(self, use):
        with pytest.raises(TypeError, match=r"<inputs\.text> has no value before the pipeline runs"):
            pipeline(name="demo")(typed(lambda text: {"o": use(text)}))

    def test_have_no_fields(self):
        with pytest.raises(AttributeError, match=r"<item\.value> has no value .* so no heading"):
            traced(lambda: each([1], lambda item: SAY(x=item.heading)))

    def test_to_an_unknown_output_name_the_nearest(self):
        with pytest.raises(AttributeError, match="prompt has no output txt; did you mean text"):
            traced(lambda: SAY(x="a").txt)
        with pytest.raises(KeyError, match="say has no output txt"):
            traced(lambda: SAY(x="a").named("say")["txt"])
        with pytest.raises(AttributeError, match="the state has n, iteration, and no m"):
            traced(lambda: loop({"n": 1}, lambda state: {"n": state.m}, max_iterations=1))

    def test_to_a_node_of_several_outputs_say_which(self):
        with pytest.raises(TypeError, match="llm has the outputs text, finish_reason, sentences: say which"):
            traced(lambda: {"o": SAY(x=SMALL(prompt="a"))})
        assert traced(lambda: {"o": SAY(x=SAY(x="a"))}).outputs == {"o": Ref("prompt2", "text")}

    def test_are_not_seen_outside_of_their_body(self):
        def leaking(text: str) -> Any:
            kept = []
            each([1], lambda item: kept.append(SAY(x=item).named("inner")) or {"o": item})
            return {"o": SAY(x=kept[0].text).text}

        assert refused(leaking) == [
            "inner.text is inside the body of each and cannot be seen in the pipeline: "
            "make it an output there"
        ]

    def test_are_not_seen_in_the_body_beside(self):
        def leaking(text: str) -> Any:
            kept = []
            return branch(
                case("1 < 2", lambda: kept.append(SAY(x=text)) or {"o": 1}),
                otherwise=lambda: {"o": kept[0].text},
            ).o

        (message,) = refused(leaking)
        assert "is inside case 1 of branch and cannot be seen in case 2 of branch" in message

    def test_are_not_seen_in_conditions_around(self):
        def leaking(text: str) -> Any:
            kept = []
            each([1], lambda item: kept.append(item) or {"o": 1})
            return {"o": SAY(x=text).when("i > 1", i=kept[0]).text.or_else(None)}

        (message,) = refused(leaking)
        assert message.startswith("item.value is inside the body of each")


class TestRefused:
    def test_mistakes_are_all_found(self):
        def wrong(text: str, more: int) -> Any:
            return {"o": Llm("small")(prmpt=text).text, "p": SAY(y=context("profile")).text}

        assert len(refused(wrong)) >= 4

    def test_order_across_bodies(self):
        def wrong() -> Any:
            first = SAY(x="a").named("first")
            return {"o": each([1], lambda item: SAY(x=item).named("second").after(first)).text}

        assert refused(wrong) == ["second cannot come after first, which is not beside it"]

    def test_a_name_twice(self):
        with pytest.raises(ValueError, match="there is a node a already"):
            traced(lambda: [SAY(x="").named("a"), SAY(x="").named("a")])

    def test_calls_outside_of_a_pipeline(self):
        with pytest.raises(RuntimeError, match="inside a function that @pipeline traces"):
            SAY(x="a")

    def test_parameters_without_a_type(self):
        with pytest.raises(TypeError, match="the parameter text of untyped needs a type"):

            @pipeline()
            def untyped(text):
                return {}

    def test_types_that_no_input_has(self):
        def wrong(text: bytes) -> Any:
            return {}

        with pytest.raises(TypeError, match="bytes is no type of a port"):
            traced(wrong)

    @pytest.mark.parametrize("result", [None, "text", 3])
    def test_results_that_are_no_outputs(self, result):
        with pytest.raises(TypeError, match="gives a node, a reference, or a dictionary of outputs"):
            traced(lambda: result)

    def test_defaults_inside_a_body(self):
        with pytest.raises(TypeError, match="neither a reference nor a value that JSON has"):
            traced(lambda: each([1], lambda item: {"o": item.or_else(2)}))


@pytest.mark.parametrize(("function", "spec"), [(each, Map), (router, Router), (agent, Agent)])
def test_settings_have_the_defaults_of_the_kind(function, spec):
    taken = inspect.signature(function).parameters
    shared = [name for name in inspect.signature(spec).parameters if name in taken]
    settings = inspect.signature(spec).parameters
    for name in shared:
        default = taken[name].default
        if default is not inspect.Parameter.empty and default is not None:
            assert default == settings[name].default
    missing = set(settings) - set(taken) - {"as", "as_", "tools", "choices", "model"}
    assert missing == set()


def test_inputs_have_the_bounds_of_their_hints():
    assert answer_questions.inputs["top_k"] == Port(INTEGER, 4, "how many", {"minimum": 1})


def test_tools_are_told_as_they_are_written():
    tool = answer_questions.nodes["agent"].spec.tools["find"]
    assert (tool.description, tool.inputs["most"]) == ("Finds passages.", Port(INTEGER, 3))


def test_choices_need_their_descriptions():
    made = traced(lambda: router("m", "t", {name: Choice(name * 2, lambda: SAY(x="")) for name in "ab"}))
    assert made.nodes["router"].spec.choices == {"a": "aa", "b": "bb"}


def typed(function: Any) -> Any:
    function.__annotations__ = {"text": str}
    return function
