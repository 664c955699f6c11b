"""`prompt`: renders the template, which was compiled when the plan was loaded."""

from __future__ import annotations

from graphs.nodes.prompt import Prompt
from graphs.templates import RenderError, compile_template
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, Resources, Values


def prepare(spec: Prompt, _resources: Resources) -> Evaluate:
    template = compile_template(spec.template)

    def evaluate(inputs: Values) -> Values:
        try:
            return {"text": template.render(inputs)}
        except RenderError as error:
            raise NodeError(f"the template cannot be rendered: {error}") from error

    return evaluate
