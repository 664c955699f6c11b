"""`prompt`: renders the template, which was compiled when the plan was loaded."""

from __future__ import annotations

from graphs.nodes.prompt import Prompt
from graphs.templates import PromptTemplate, RenderError, compile_template
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, Resources, Values


def prepare(spec: Prompt, _resources: Resources) -> Evaluate:
    template = compile_template(spec.template)
    return lambda inputs: {"text": rendered(template, inputs)}


def rendered(template: PromptTemplate, values: Values) -> str:
    """The text. Raises `NodeError`."""
    try:
        return template.render(values)
    except RenderError as error:
        raise NodeError(f"the template cannot be rendered: {error}") from error
