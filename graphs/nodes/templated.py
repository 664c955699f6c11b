"""What the kinds that hold a template share: its variables are ports, its mistakes are those of the node."""

from __future__ import annotations

from graphs.nodes.spec import Fault
from graphs.ports import ANY, Port
from graphs.templates import Outline


def template_variables(outline: Outline, field: str) -> dict[str, tuple[str, int]]:
    """By variable of the template in `field`: that field and the line."""
    return {name: (field, line) for name, line in outline.variables.items()}


def template_ports(outline: Outline) -> dict[str, Port]:
    """An input for each variable."""
    return {name: Port(ANY) for name in outline.variables}


def template_faults(outline: Outline, field: str) -> list[Fault]:
    """What is wrong with the template in `field`."""
    return [
        Fault("bad-template", fault.message, field, fault.line, fault.token, fault.hint)
        for fault in outline.faults
    ]
