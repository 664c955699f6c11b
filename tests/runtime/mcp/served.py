"""A small MCP server in a process: over its standard streams, or with `http` over a port that it prints."""

import os
import socket
import sys

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("small", log_level="CRITICAL")


@server.tool(structured_output=False)
def greet(name: str) -> str:
    return f"Hello {name}."


@server.tool()
def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@server.tool()
def fail() -> str:
    raise ValueError("this never works")


@server.tool(structured_output=False)
def large(size: int) -> str:
    return "x" * size


@server.tool()
async def wait() -> str:
    await anyio.sleep_forever()


@server.tool(structured_output=False)
def leave() -> str:
    os._exit(1)


@server.tool(structured_output=False)
def variable(name: str) -> str:
    return os.environ.get(name, "not set")


@server.tool(structured_output=False)
def key(ctx: Context) -> str:
    return str((ctx.request_context.meta or {}).get("idempotencyKey"))


@server.tool(structured_output=False)
def process() -> str:
    return str(os.getpid())


def over_http() -> None:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", int(sys.argv[2])))
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    app = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    if sys.argv[1:]:
        over_http()
    else:
        server.run()
