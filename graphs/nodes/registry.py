"""Every kind of node there is. A new kind is a line here and a file beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from graphs.nodes.agent import Agent
from graphs.nodes.approval import Approval
from graphs.nodes.branch import Branch
from graphs.nodes.classify import Classify
from graphs.nodes.embed import Embed
from graphs.nodes.function import Function
from graphs.nodes.guardrail import Guardrail
from graphs.nodes.http import Http
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.rerank import Rerank
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.tool import Tool
from graphs.nodes.value import Value

AnySpec = (
    Llm
    | Embed
    | Retrieve
    | Prompt
    | Value
    | Classify
    | Rerank
    | Guardrail
    | Http
    | Function
    | Approval
    | Tool
    | Map
    | Branch
    | Loop
    | Subgraph
    | Router
    | Agent
)

KINDS: Mapping[str, type[AnySpec]] = {spec.kind(): spec for spec in get_args(AnySpec)}
"""By name, as in YAML."""
