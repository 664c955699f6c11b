"""Nodes whose template stands in a prompt file.

prompt: {use: prompts/answer@stable}     ─►  template, use, version
llm: {prompt: prompts/answer@stable}     ─►  prompt, use, version
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.errors import Path, Problem
from graphs.nodes.registry import AnySpec
from graphs.prompts import UnknownPrompt, is_reference
from graphs.reading.base import Reading


def template_settings(
    reading: Reading, spec_type: type[AnySpec], settings: Any, path: Path
) -> Mapping[str, Any] | None:
    """The fields that a node takes from a prompt file. None where there is no such prompt."""
    field = spec_type.template_field
    if field is None or not isinstance(settings, dict):
        return {}
    written = field if "use" in spec_type.set_when_read else "use"
    reference = settings.get(written)
    if not isinstance(reference, str) or (written == field and not is_reference(reference)):
        return {}
    if written != field and field in settings:
        message = f"the {field} is that of the prompt in {written}"
        reading.problem("unknown-field", message, (*path, field), on_key=True, hint="leave one of them out")
    try:
        prompt = reading.known.prompts.find(reference)
    except UnknownPrompt as unknown:
        reading.problems.append(
            Problem("unknown-prompt", str(unknown), (*path, written), token=unknown.token, hint=unknown.hint)
        )
        return None
    return {field: prompt.template, "use": reference, "version": prompt.version}
