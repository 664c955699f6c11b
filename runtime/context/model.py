"""The context document: one schema from the API to the store (camelCase outside, msgpack within).

    {"contextId": "c-1", "version": 3, "schemaVersion": 1,
     "sessionHistory": [{"role": "user", "content": "..."}, ...],
     "userProfile": {}, "environmentalVariables": {}, "toolDefinitions": [],
     "intermediateResults": {}, "systemInstructions": null}

It evolves by adding fields with defaults: an older reader ignores them, a newer one fills them in.
`SCHEMA_VERSION` rises only when the meaning of a field changes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.messages import Message

SCHEMA_VERSION = 1


class Details(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a context holds besides its history; replaced as a whole, never appended to."""

    schema_version: int = SCHEMA_VERSION
    user_profile: dict[str, Any] = {}
    """Who is talking: free-form facts that templates may use."""
    environmental_variables: dict[str, str] = {}
    """Settings of the session, such as locale or time zone."""
    tool_definitions: list[dict[str, Any]] = []
    """OpenAI tool objects offered to the model on every turn."""
    intermediate_results: dict[str, Any] = {}
    """Outputs of nodes that later turns build on, by node name."""
    system_instructions: str | None = None
    """Put before the history on every turn."""


class Context(msgspec.Struct, frozen=True, rename="camel"):
    """A conversation as of `version`."""

    context_id: str
    version: int = 0
    """How often it was changed. 0: it does not exist yet."""
    schema_version: int = SCHEMA_VERSION
    session_history: list[Message] = []
    """Turns, oldest first."""
    user_profile: dict[str, Any] = {}
    environmental_variables: dict[str, str] = {}
    tool_definitions: list[dict[str, Any]] = []
    intermediate_results: dict[str, Any] = {}
    system_instructions: str | None = None

    def details(self) -> Details:
        return Details(**{name: getattr(self, name) for name in Details.__struct_fields__})
