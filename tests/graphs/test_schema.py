"""The published schema: current, right for every pipeline there is, and refusing what it can."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

import graphs
from graphs import yaml_tree
from graphs.fields import example, field_docs, field_schemas, sentence
from graphs.nodes.llm import Llm
from graphs.nodes.registry import KINDS
from graphs.pipeline import Cache, Chat, Context, Fallback, Metadata, Policies, Retry
from graphs.schema import language_schema
from graphs.writer import to_data
from tests.graphs.broken import ANSWER, HEAD, PARTS, TAIL, with_node
from tests.graphs.shapes import SHAPES, pipelines, pipelines_with_bodies
from tests.graphs.test_broken_bodies import BROKEN as INSIDE
from tests.graphs.test_broken_pipelines import ABSENT, NODES, TOP
from tests.graphs.test_broken_policies import BROKEN as POLICIES

ROOT = Path(graphs.__file__).parent.parent
PUBLISHED = ROOT / "docs" / "pipeline.schema.json"
LIBRARY = sorted((ROOT / "graphs" / "library").glob("*.yaml"))
VALIDATOR = Draft202012Validator(language_schema())

SEEN_BY_A_SCHEMA = {
    *("unknown-kind", "unknown-field", "missing", "bad-value", "bad-reference", "unknown-type", "bad-name"),
}
"""Codes of mistakes that can be seen without knowing what names mean."""


def accepts(data) -> bool:
    return VALIDATOR.is_valid(data)


def test_it_is_a_schema_of_the_draft_that_it_names():
    schema = language_schema()
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    assert list(meta.iter_errors(schema)) == []


def test_every_reference_in_it_leads_somewhere():
    schema = language_schema()
    named = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert named <= set(schema["$defs"])
    assert len(named) > 20


def test_what_is_published_is_current():
    published = json.loads(PUBLISHED.read_text())
    assert published == language_schema(), "run `clustergraph schema > docs/pipeline.schema.json`"


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_the_library_is_accepted_and_names_its_schema(file):
    text = file.read_text()
    assert accepts(yaml_tree.read(text).data)
    head, _, target = text.split("\n")[0].partition("$schema=")
    assert head == "# yaml-language-server: "
    assert (file.parent / target).resolve() == PUBLISHED


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_accepted(name):
    assert list(VALIDATOR.iter_errors(to_data(SHAPES[name]()))) == []


@given(pipelines())
def test_any_pipeline_is_accepted(pipeline):
    assert accepts(to_data(pipeline))


@given(pipelines_with_bodies())
def test_any_pipeline_with_bodies_is_accepted(pipeline):
    assert accepts(to_data(pipeline))


def broken() -> dict[str, tuple[str, str]]:
    """Every broken pipeline of the loader's tests: its text and the code of its mistake."""
    texts = {name: (HEAD + nodes + ANSWER + TAIL, code) for name, (nodes, code, *_) in NODES.items()}
    texts |= {f"inside: {name}": (with_node(node), code) for name, (node, code, *_) in INSIDE.items()}
    texts |= {f"policy: {name}": (with_node(node), code) for name, (node, code, *_) in POLICIES.items()}
    for name, (section, code, *_) in TOP.items():
        rest = "".join(text for part, text in PARTS.items() if f"{part}:" not in section)
        texts[f"top: {name}"] = (section + rest, code)
    for name, (outputs, code, *_) in ABSENT.items():
        rest = "".join(text for part, text in PARTS.items() if part != "outputs")
        texts[f"absent: {name}"] = (rest + outputs, code)
    return texts


REFUSED = {name: text for name, (text, code) in broken().items() if code in SEEN_BY_A_SCHEMA}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_what_it_can(name):
    data = yaml_tree.read(REFUSED[name]).data
    assert data is not None
    assert not accepts(data)


def test_a_pipeline_of_every_section_that_is_missing_is_refused():
    whole = yaml_tree.read("".join(PARTS.values())).data
    assert accepts(whole)
    for section in PARTS:
        without = {name: value for name, value in whole.items() if name != section}
        assert accepts(without) == (section == "inputs")


@pytest.mark.parametrize(
    "struct", [*KINDS.values(), Metadata, Context, Chat, Policies, Retry, Fallback, Cache]
)
def test_every_field_is_explained(struct):
    assert all("description" in described for described in field_schemas(struct).values())


def test_field_docs():
    assert field_docs(Llm)["model"] == "Name of a pool that generates."


@pytest.mark.parametrize("kind", KINDS)
def test_examples(kind):
    made = example(KINDS[kind])
    assert made.kind() == kind
    assert list(made.faults()) == []


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 8}, "integer, 1 to 8"),
        ({"type": "integer", "minimum": 1}, "integer, at least 1"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, more than 0"),
        ({"type": "string", "maxLength": 3}, "string, at most 3 characters"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"enum": ["a", "b"]}, "a, b"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, "list of string, at most 2"),
        ({"type": "array"}, "list of any"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping to string"),
        ({"type": "object"}, "object"),
        ({}, "any"),
    ],
)
def test_sentence(described, words):
    assert sentence(described) == words
