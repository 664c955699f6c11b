"""`tool` nodes: what reaches the server, and what comes of its answer."""

import msgspec

from cluster.errors import ReplicaLost
from graphs.documents import Document
from graphs.nodes.tool import Tool
from graphs.pipeline import Fallback
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Resources, ToolResult
from runtime.runner import Runner
from tests.runtime.executor.plans import asked, node, plan
from tests.runtime.parts import failed, finished, pools


class Server:
    """Answers what it is told to."""

    def __init__(self, answer: ToolResult | Exception) -> None:
        self.answer = answer
        self.calls = []
        self.keys = []

    async def call(self, tool, arguments, deadline, key):
        self.keys.append(key)
        self.calls.append((tool, arguments, deadline))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def finding(server: Server, policies=None, **arguments):
    spec = Tool(server="tickets", tool="search").taking(arguments)
    find = node("find", spec, policies=policies, **arguments)
    made = plan(find, inputs=("q",), text="${find.text}", data="${find.data}")
    return Runner([made], Resources(pools(), servers={"tickets": server}))


async def test_arguments_and_answer():
    server = Server(ToolResult("two tickets", {"count": 2}))
    request = asked(q="tea")
    end = await finished(finding(server, query="${inputs.q}", limit=5), request)
    assert end.outputs == {"text": "two tickets", "data": {"count": 2}}
    assert server.calls == [("search", {"query": "tea", "limit": 5}, request.deadline)]


async def test_a_call_has_the_same_key_however_often_it_is_made():
    server = Server(ToolResult(""))
    runner = finding(server, query="${inputs.q}")
    for run_id in ("run-1", "run-1", "run-2"):
        await finished(runner, msgspec.structs.replace(asked(q="tea"), run_id=run_id))
    first, again, other = server.keys
    assert first == again != other


async def test_structs_reach_the_server_as_json():
    server = Server(ToolResult(""))
    document = Document("1", "text", "a.md", "A", 3, 0.5)
    await finished(finding(server, documents="${inputs.q}"), asked(q=[document]))
    assert server.calls[0][1] == {"documents": [msgspec.to_builtins(document)]}


async def test_a_tool_that_fails_fails_the_node():
    last = await failed(finding(Server(NodeError("the tool search of tickets failed: no"))), asked())
    assert (last.node, last.failure.kind) == ("find", "NodeError")
    assert "failed: no" in last.failure.message


async def test_a_value_stands_in_for_a_server_that_is_gone():
    policies = {"fallback": (Fallback(value="none"),)}
    end = await finished(finding(Server(ReplicaLost("gone")), policies), asked())
    assert end.outputs == {"text": "none", "data": None}
