"""`python -m benchmarks.graphs.langgraph_peer DOOR [DATABASE]`: the graphs of B3 and B6 on LangGraph.

Runs in an environment of its own, `.venv-peers`, and so imports nothing of ours but the tools and the door.
With a DATABASE it keeps its state there after every step, with LangGraph's own saver for SQLite.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.graphs.door_client import Door
from benchmarks.graphs.plain_tools import act, look

STEPS = 6


class Branches(TypedDict, total=False):
    """The state of B3."""

    tenant: str
    topic: str
    unit_s: float
    seen: str
    asked: str
    checked: str
    story: str
    title: str


class Steps(TypedDict, total=False):
    """The state of B6."""

    tenant: str
    act_s: float
    seen: str
    thought: str
    step: int


def branches(door: Door) -> StateGraph[Branches]:
    """Quick tool, then a call; slow tool, then a quick one; a call that takes from both."""

    async def look_at(state: Branches) -> Branches:
        return {"seen": await look(state["topic"], 0.2 * state["unit_s"])}

    async def draft(state: Branches) -> Branches:
        prompt = f"Write a short story for children about this: {state['seen']}"
        return {"story": await door.ask(state["tenant"], prompt, 64)}

    async def ask(state: Branches) -> Branches:
        return {"asked": await look(state["topic"], 3.0 * state["unit_s"])}

    async def check(state: Branches) -> Branches:
        return {"checked": await look(state["asked"], 0.2 * state["unit_s"])}

    async def entitle(state: Branches) -> Branches:
        prompt = f"Write a title for this story, in which there is {state['checked']}: {state['story']}"
        return {"title": await door.ask(state["tenant"], prompt, 16)}

    graph = StateGraph(Branches)
    for name, node in (("look", look_at), ("draft", draft), ("ask", ask), ("check", check)):
        graph.add_node(name, node)
    graph.add_node("entitle", entitle)
    graph.add_edge(START, "look")
    graph.add_edge(START, "ask")
    graph.add_edge("look", "draft")
    graph.add_edge("ask", "check")
    graph.add_edge(["draft", "check"], "entitle")
    graph.add_edge("entitle", END)
    return graph


def steps(door: Door) -> StateGraph[Steps]:
    """Thinks and acts, in turn, six times."""

    async def think(state: Steps) -> Steps:
        return {"thought": await door.ask(state["tenant"], state["seen"], 24)}

    async def do(state: Steps) -> Steps:
        seen = await act(state["thought"], state["step"], state["act_s"])
        return {"seen": seen, "step": state["step"] + 1}

    graph = StateGraph(Steps)
    graph.add_node("think", think)
    graph.add_node("act", do)
    graph.add_edge(START, "think")
    graph.add_edge("think", "act")
    graph.add_conditional_edges("act", lambda state: "think" if state["step"] < STEPS else END)
    return graph


async def serve(door: Door, saver: AsyncSqliteSaver | None) -> None:
    """Runs what it is told to, line by line."""
    graphs = {
        "branches": branches(door).compile(checkpointer=saver),
        "steps": steps(door).compile(checkpointer=saver),
    }
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        told: dict[str, Any] = json.loads(line)
        given = {"tenant": told["tenant"], **told["inputs"]}
        if told["graph"] == "steps":
            given |= {"seen": given.pop("task"), "step": 0}
        config: Any = {"configurable": {"thread_id": told["tenant"]}, "recursion_limit": 100}
        state = await graphs[told["graph"]].ainvoke(
            None if told.get("resume") else given,
            config,
            durability="sync" if saver is not None else None,
        )
        wanted = ("story", "title") if told["graph"] == "branches" else ("seen",)
        print(json.dumps({name: state[name] for name in wanted}), flush=True)


async def main() -> None:
    door = await Door.enter(sys.argv[1])
    if len(sys.argv) == 2:
        await serve(door, None)
    else:
        async with AsyncSqliteSaver.from_conn_string(sys.argv[2]) as saver:
            await serve(door, saver)
    await door.leave()


if __name__ == "__main__":
    asyncio.run(main())
