"""What one tenant has, and the ways in which another may try to get at it.

Each probe is made twice: with the name of something that there is, and with one of the same form that nobody
has. Whoever does not own it must not be able to tell the two apart, nor see anything that the owner said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx

CANARY = "xyzzy-7f3a"
"""Part of everything that the owner says."""
KINDS = ("response", "run", "context")
ODD_FORMS = ("{}", "{}%00", "{}/", "%2e%2e/{}", "{}%3Aturns", "%7Bacme%7D:{}")


class Planted(NamedTuple):
    """Names of what the owner has, by kind."""

    names: dict[str, str]
    made_up: dict[str, str]
    """Names of the same form that nobody has."""
    answers: dict[str, bytes]
    """Of requests that the owner made under an idempotency key, by the key."""


class Probe(NamedTuple):
    kind: str
    """Of the thing that is asked for."""
    method: str
    path: str
    """`NAME` in it, and in the body, stands for the name."""
    body: Any = None


class Difference(NamedTuple):
    """Of two answers that should be the same."""

    probe: Probe
    real: str
    made_up: str


def chat(model: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


async def plant(
    http: httpx.AsyncClient, model: str, graph: str, inputs: dict[str, Any], number: int
) -> Planted:
    """Has the owner keep one of each."""
    context, key = f"talk-{number}", f"order-{number}"
    said = f"{CANARY} {number}"
    kept = await http.post("/v1/responses", json={"model": model, "input": said})
    await http.post("/v1/chat/completions", json=chat(model, said, contextId=context))
    run = {"inputs": inputs, "background": True, "durability": "step"}
    begun = await http.post(f"/v1/graphs/{graph}/runs", json=run)
    once = await http.post("/v1/chat/completions", json=chat(model, said), headers={"idempotency-key": key})
    for answer in (kept, begun, once):
        assert answer.is_success, answer.text
    names = {"response": kept.json()["id"], "run": begun.json()["run_id"], "context": context, "key": key}
    made_up = {"response": f"resp_{number:032x}", "run": f"{number:032x}", "context": f"none-{number}"}
    return Planted(names, made_up, {key: once.content})


def probes(model: str, graph: str) -> Iterator[Probe]:
    """All ways to ask for something by its name."""
    for form in ODD_FORMS:
        name = form.format("NAME")
        for kind, path in (("response", "responses"), ("run", "runs"), ("context", "contexts")):
            yield Probe(kind, "GET", f"/v1/{path}/{name}")
        yield Probe("response", "DELETE", f"/v1/responses/{name}")
        yield Probe("response", "GET", f"/v1/responses/{name}/input_items")
        yield Probe("response", "POST", f"/v1/responses/{name}/cancel")
        yield Probe("run", "GET", f"/v1/runs/{name}?outputs=true")
        for action in ("events", "approvals"):
            yield Probe("run", "GET", f"/v1/runs/{name}/{action}")
        yield Probe("run", "POST", f"/v1/runs/{name}/cancel", {})
        yield Probe("run", "POST", f"/v1/runs/{name}/resume", {})
        yield Probe("run", "POST", f"/v1/runs/{name}/fork", {"from": "final"})
        yield Probe("run", "POST", f"/v1/runs/{name}/approvals/review", {"decision": "approved"})
    yield Probe(
        "response", "POST", "/v1/responses", {"model": model, "input": "So?", "previous_response_id": "NAME"}
    )
    yield Probe("context", "POST", "/v1/chat/completions", chat(model, "So?", contextId="NAME"))
    yield Probe("context", "GET", "/v1/contexts/NAME")
    yield Probe("context", "DELETE", "/v1/contexts/NAME")
    yield Probe("run", "GET", "/v1/runs?after=NAME")
    yield Probe("run", "GET", f"/v1/runs?graph={graph}")


async def differences(
    spy: httpx.AsyncClient, planted: Planted, all_probes: Iterable[Probe]
) -> list[Difference]:
    """Probes that told the spy something. One after the other: some leave something of the spy's own."""
    found = []
    for probe in all_probes:
        real = await _told(spy, probe, planted.names[probe.kind])
        made_up = await _told(spy, probe, planted.made_up[probe.kind])
        if real != made_up or CANARY in real:
            found.append(Difference(probe, real, made_up))
    return found


async def _told(http: httpx.AsyncClient, probe: Probe, name: str) -> str:
    """The answer, without what differs from one answer to the next anyway."""
    body = _named(probe.body, name)
    answer = await http.request(probe.method, probe.path.replace("NAME", name), json=body, timeout=120)
    text = answer.text.replace(name, "NAME")
    if answer.is_success and probe.method == "POST":
        said = answer.json()
        text = str([choice["message"]["content"] for choice in said.get("choices", ())])
    return f"{answer.status_code} {answer.headers.get('x-context-version', '')} {text}"


def _named(body: Any, name: str) -> Any:
    if isinstance(body, dict):
        return {field: name if value == "NAME" else value for field, value in body.items()}
    return body


async def replayed(spy: httpx.AsyncClient, model: str, planted: Planted) -> bool:
    """Whether the owner's answer is given to a stranger with the same key and body."""
    key, answer = next(iter(planted.answers.items()))
    body = chat(model, f"{CANARY} {key.removeprefix('order-')}")
    told = await spy.post("/v1/chat/completions", json=body, headers={"idempotency-key": key}, timeout=120)
    assert told.status_code == 200, told.text
    return "idempotent-replayed" in told.headers or told.content == answer
