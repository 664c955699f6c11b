"""What a deploy config says of an MCP server. Only it names commands and addresses, never a pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from cluster.errors import ConfigError
from cluster.spec import Spec

ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class McpServerSpec(Spec):
    """A server, reached by its address or started as a command: exactly one of the two."""

    url: str | None = Field(default=None, pattern=r"^https?://[^\s@]+$")
    """Of a server that speaks streamable HTTP."""
    token_env: EnvironmentName | None = None
    """Environment variable that holds the bearer token for `url`."""
    command: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    """Program and arguments of a server that speaks over its standard input and output."""
    env: list[EnvironmentName] = Field(default_factory=list, max_length=64)
    """Environment variables that `command` gets. Besides them it gets only `PATH`, `HOME` and the like."""
    timeout_s: float = Field(default=30, gt=0, le=600)
    """Longest wait for one answer, and for the connection."""
    max_result_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """Largest answer of a tool, as JSON."""

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> McpServerSpec:
        if (self.url is None) == (self.command is None):
            raise ValueError("a server has either url or command")
        if self.url is None and self.token_env is not None:
            raise ValueError("token_env goes with url")
        if self.command is None and self.env:
            raise ValueError("env goes with command")
        return self


def secrets_of(name: str, spec: McpServerSpec, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that the server needs. Raises `ConfigError` naming one that is not set."""
    needed = [*spec.env, *([spec.token_env] if spec.token_env is not None else [])]
    for variable in needed:
        if not environ.get(variable):
            raise ConfigError(f"the environment variable {variable} is not set", param=f"mcp.{name}")
    return {variable: environ[variable] for variable in needed}
