"""The manual says what the code does: its examples run, its names exist, its links lead somewhere.

It is also what the support-rag graph retrieves from, so every section must stand alone and be short.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml
from pydantic import BaseModel

from cluster.config import AnthropicSpec, FakeSpec, OnnxSpec, OpenAISpec, VllmSpec
from graphs.fields import example
from graphs.loader import load
from graphs.nodes.registry import KINDS
from graphs.pipeline import Pipeline
from graphs.prompt_files import load_prompt
from serve_apps.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
MAX_PROSE_CHARS = 900
"""Of a section without its code and tables: what a small model can take three of."""


class Section(NamedTuple):
    page: Path
    heading: str
    body: str


def sections() -> Iterator[Section]:
    for page in PAGES:
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            yield Section(page, heading.strip(), body.strip())


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Page and text of every code block in a language."""
    for page in PAGES:
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            yield page.name, text


def test_the_pages_are_there():
    assert {page.stem for page in PAGES} >= {
        *("index", "getting-started", "architecture", "api", "graphs", "library", "configuration", "context"),
        *("keys-and-quotas", "operations", "deployment"),
    }


@pytest.mark.parametrize("section", list(sections()), ids=lambda s: f"{s.page.stem}: {s.heading}")
def test_a_section_is_short_and_says_something(section):
    prose = re.sub(r"^```.*?^```|^\|.*$", "", section.body, flags=re.MULTILINE | re.DOTALL).strip()
    assert 20 < len(prose) <= MAX_PROSE_CHARS or "|" in section.body


def test_no_two_sections_have_one_heading():
    headings = [(section.page, section.heading) for section in sections()]
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_that_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_repository_that_it_names_exist(page):
    named = re.findall(
        r"`((?:deploy|serve_apps|graphs|cluster|runtime|benchmarks)/[\w./-]+)`", page.read_text()
    )
    for path in named:
        if not path.startswith("benchmarks/results/"):
            assert (ROOT / path).exists(), path


def test_the_picture_is_an_svg_with_a_description():
    root = ElementTree.parse(DOCS / "architecture.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}desc") is not None


@pytest.mark.parametrize("text", [text for _, text in blocks("yaml") if "kind: Pipeline" in text])
def test_the_pipelines_load(text):
    loaded = load(text)
    assert isinstance(loaded.pipeline, Pipeline)
    assert loaded.warnings == []


@pytest.mark.parametrize("text", [text for _, text in blocks("yaml") if "kind: Prompt" in text])
def test_the_prompts_load(text):
    assert load_prompt(text).labels


def test_the_configs_load(tmp_path):
    texts = [text for _, text in blocks("yaml") if "models:" in text]
    assert texts
    for text in texts:
        path = tmp_path / "deploy.yaml"
        path.write_text(text)
        assert load_settings(path).models


@pytest.mark.parametrize("text", [text for _, text in blocks("python") if "Builder" in text])
def test_the_builder_example_builds_what_the_yaml_example_says(text):
    names: dict[str, object] = {}
    exec(compile(text, "graphs.md", "exec"), names)
    assert isinstance(names["pipeline"], Pipeline)


@pytest.mark.parametrize("text", [text for _, text in blocks("python")])
def test_python_examples_compile(text):
    code = compile(text, "manual", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_names, "it does nothing"


async def test_the_notebook_examples_run_one_after_the_other(capsys):
    names: dict[str, Any] = {}
    for text in (text for _, text in blocks("python") if "runtime.local" in text):
        code = compile(text, "notebook", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        cell = FunctionType(code, names)()
        if inspect.isawaitable(cell):
            await cell
    assert names["outputs"]["text"]
    assert capsys.readouterr().out


@pytest.mark.parametrize("text", [text for _, text in blocks("json")])
def test_json_examples_are_json(text):
    assert yaml.safe_load(text)["error"]["code"]


def test_every_kind_of_node_has_its_section():
    headings = [section.heading for section in sections() if section.page.stem == "graphs"]
    for kind in KINDS:
        article = "an" if kind[0] in "aeiou" or kind in ("llm", "http") else "a"
        assert f"What does {article} {kind} node do?" in headings


def test_the_settings_of_every_kind_are_named():
    for kind, spec in KINDS.items():
        (body,) = [s.body for s in sections() if re.fullmatch(rf"What does an? {kind} node do\?", s.heading)]
        written = [name for name in spec.__struct_encode_fields__ if name not in spec.set_when_read]
        for field in (*written, *_ports(spec)):
            assert f"`{field}`" in body, f"{kind}.{field}"


def _ports(spec: type) -> list[str]:
    """Names of inputs and outputs, for kinds that have them whatever their settings are."""
    made = example(spec)
    return [*made.inputs(), *made.outputs({})]


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("model", [Settings, VllmSpec, OnnxSpec, FakeSpec, OpenAISpec, AnthropicSpec])
def test_every_field_of_the_config_is_in_the_reference(model):
    page = (DOCS / "configuration.md").read_text()
    for name in _leaves(model):
        assert re.search(rf"\b{re.escape(name)}\b", page), name


def test_every_error_code_of_the_table_is_in_the_code():
    (table,) = [section.body for section in sections() if section.heading == "Which errors are there?"]
    sources = "\n".join(path.read_text() for path in (ROOT / "serve_apps").rglob("*.py"))
    codes = {code for row in table.splitlines()[2:] for code in re.findall(r"`([a-z_]+)`", row.split("|")[2])}
    assert len(codes) > 20
    for code in codes:
        assert f'"{code}"' in sources, code


def test_every_error_code_of_the_code_is_in_the_table():
    (table,) = [section.body for section in sections() if section.heading == "Which errors are there?"]
    sources = "\n".join(path.read_text() for path in (ROOT / "serve_apps").rglob("*.py"))
    codes = set(re.findall(r'(?:\bcode=|default_code = )"([a-z_]+)"', sources)) - {"internal_error"}
    for code in codes:
        assert f"`{code}`" in table, code


def test_the_routes_it_names_are_served():
    sources = "\n".join(path.read_text() for path in (ROOT / "serve_apps").rglob("*.py"))
    for page in PAGES:
        for route in re.findall(r"`(?:GET |DELETE |POST )?(/(?:v1|healthz|readyz)[a-z/]*)", page.read_text()):
            assert route.rstrip("/") in sources, route
