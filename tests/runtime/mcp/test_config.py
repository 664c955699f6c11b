"""What a deploy config says of MCP servers."""

import pytest
from pydantic import ValidationError

from cluster.errors import ConfigError
from runtime.mcp.config import McpServerSpec, secrets_of


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either url or command"),
        ({"url": "http://localhost/mcp", "command": ["server"]}, "either url or command"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://user:secret@localhost/mcp"}, "url"),
        ({"command": []}, "command"),
        ({"command": ["server"], "token_env": "TOKEN"}, "token_env goes with url"),
        ({"url": "http://localhost/mcp", "env": ["TOKEN"]}, "env goes with command"),
        ({"command": ["server"], "env": ["A=B"]}, "env"),
        ({"command": ["server"], "shell": True}, "shell"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        McpServerSpec(**fields)


def test_secrets_are_found_by_name():
    environ = {"TOKEN": "s3cret", "OTHER": "not asked for"}
    assert secrets_of("a", McpServerSpec(command=["x"], env=["TOKEN"]), environ) == {"TOKEN": "s3cret"}
    assert secrets_of("a", McpServerSpec(url="http://x", token_env="TOKEN"), environ) == {"TOKEN": "s3cret"}
    assert secrets_of("a", McpServerSpec(url="http://x"), environ) == {}


def test_a_secret_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match="TOKEN is not set") as refused:
        secrets_of("search", McpServerSpec(url="http://x", token_env="TOKEN"), {"TOKEN": ""})
    assert refused.value.param == "mcp.search"
