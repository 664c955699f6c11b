"""Runs a plan in the plainest way, one node after the other, with what was done before: to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from zlib import crc32

from graphs.bindings import Binding, Ref
from graphs.conditions import Condition, operands_of, predicate_of
from graphs.nodes.agent import Agent
from graphs.nodes.branch import Branch
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.templates import PromptTemplate
from runtime.durability.model import Checkpoint
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedBody, PlannedNode
from tests.runtime.looking import ABSENT, Values, look

MOST_CHARS = 100


def said(*words: Any) -> str:
    """A model's answer: another for each prompt."""
    return f"m{crc32(json.dumps(words).encode()):x}"


def short(text: str) -> str:
    """The text, or what tells it from all others: texts of texts of texts grow without bound."""
    return text if len(text) < MOST_CHARS else f"{text[:MOST_CHARS]}{crc32(text.encode()):x}"


class Interpreter:
    """One run. `done` is not done again; `forced` gives what it says whatever it was to compute."""

    def __init__(self, plan: ExecutionPlan, done: Mapping[str, Checkpoint] | None = None, **forced: Any):
        self.plan = plan
        self.done = dict(done or {})
        self.forced = forced
        self.kept: dict[str, Checkpoint] = {}
        """What this run has done itself, without what costs nothing."""
        self.gave: dict[str, Mapping[str, Any]] = {}
        """By path of every node that has run here."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        values = {Ref("inputs", name): value for name, value in inputs.items()}
        body = PlannedBody(self.plan.steps, self.plan.outputs, defaults=self.plan.defaults)
        return self._body(body, values, "")[0]

    def _body(self, body: PlannedBody, values: Values, prefix: str) -> tuple[dict[str, Any], Values]:
        values = dict(values)
        self._scope(body.steps, values, prefix)
        outputs = {}
        for name, binding in body.outputs.items():
            absent = isinstance(binding, Ref) and values[binding] is ABSENT
            outputs[name] = body.defaults.get(name) if absent else look(binding, values)
        return outputs, values

    def _scope(self, steps: Sequence[ExecutionStep], values: Values, prefix: str) -> None:
        for step in steps:
            for node in step.nodes:
                outputs = self._node(node, values, prefix + node.name, cheap=step.backend == "inline")
                for port in node.ports():
                    values[Ref(node.name, port)] = ABSENT if outputs is None else output(node, port, outputs)

    def _node(self, node: PlannedNode, values: Values, path: str, *, cheap: bool) -> Mapping[str, Any] | None:
        if plain(path) in self.forced:
            return self.forced[plain(path)]
        if path in self.done:
            return None if self.done[path].skipped else self.done[path].outputs
        if skips(node, values):
            if not cheap:
                self.kept[path] = Checkpoint(path, {}, skipped=True)
            return None
        inputs = {port: given(node, port, each, values) for port, each in node.inputs.items()}
        own = [port for port in node.ports() if port not in node.spec.derived]
        outputs = dict.fromkeys(own) | self._try(node, inputs, values, path)
        self.gave[plain(path)] = outputs
        if not cheap:
            self.kept[path] = Checkpoint(path, outputs)
        return outputs

    def _try(self, node: PlannedNode, inputs: dict[str, Any], values: Values, path: str) -> dict[str, Any]:
        """The node, which fails the first time where it may be tried again."""
        if node.retry is None or not node.bodies:
            return self._perform(node, inputs, values, path)
        second = f"{path}~2"
        if second not in self.done:
            self._perform(node, inputs, values, path)
            inside = (f"{path}.", f"{path}[", f"{path}+")
            self.kept = {each: kept for each, kept in self.kept.items() if not each.startswith(inside)}
            self.kept[second] = Checkpoint(second, 2)
        return self._perform(node, inputs, values, second)

    def _once(self, key: str, work: Callable[[], Any]) -> Any:
        if key in self.done:
            return self.done[key].outputs
        self.kept[key] = Checkpoint(key, value := work())
        return value

    def _perform(
        self, node: PlannedNode, inputs: dict[str, Any], values: Values, path: str
    ) -> dict[str, Any]:
        def inside(key: str, label: str, told: Values) -> tuple[dict[str, Any], Values]:
            around = told if node.spec.closed else {**values, **told}
            return self._body(node.bodies[key], around, f"{path}{label}.")

        match node.spec:
            case Prompt(template=template):
                return {"text": short(PromptTemplate(template).render(inputs))}
            case Llm(model=model):
                return {"text": said(model, inputs["prompt"]), "finish_reason": "stop"}
            case Map(as_=item):
                each = [
                    inside("body", f"[{place}]", {Ref(item, "value"): one, Ref(item, "index"): place})[0]
                    for place, one in enumerate(inputs["over"])
                ]
                return {name: [one[name] for one in each] for name in node.bodies["body"].outputs}
            case Loop() as spec:
                return self._loop(spec, node.bodies["body"], inputs, path, inside)
            case Branch():
                case = next((key for key, each in node.bodies.items() if holds(each.when, values)), None)
                return {} if case is None else inside(case, f".{case}", {})[0]
            case Subgraph():
                return inside("body", "", {Ref("inputs", name): value for name, value in inputs.items()})[0]
            case Router(choices=choices):
                wanted = sorted(choices)[crc32(str(inputs["text"]).encode()) % len(choices)]
                chosen = self._once(f"{path}+choice", lambda: wanted)
                return inside(chosen, f".{chosen}", {})[0] | {"choice": chosen}
            case Agent() as spec:
                return self._agent(spec, inputs["prompt"], path, inside)
            case _:
                return {"value": inputs["value"]}

    def _loop(
        self, spec: Loop, body: PlannedBody, state: dict[str, Any], path: str, inside: Any
    ) -> dict[str, Any]:
        number, outputs = 0, {}
        while (part := f"{path}+{number + 1}") in self.done:
            number, (outputs, state) = number + 1, self.done[part].outputs
        while number < spec.max_iterations:
            told = {Ref(spec.as_, name): value for name, value in state.items()}
            outputs, seen = inside("body", f"[{number}]", {**told, Ref(spec.as_, "iteration"): number})
            state = {name: outputs.get(name, value) for name, value in state.items()}
            number += 1
            if body.until is not None and holds(body.until, seen):
                break
            self.kept[f"{path}+{number}"] = Checkpoint(f"{path}+{number}", (outputs, state))
        return {**outputs, **state, "iterations": number}

    def _agent(self, spec: Agent, prompt: str, path: str, inside: Any) -> dict[str, Any]:
        told, steps = [prompt], []
        for number in range(spec.max_steps - 1):
            reply = self._once(f"{path}+{number}", partial(said, spec.model, told))
            use = partial(inside, "look", f"[{number}].look", {Ref("args", "q"): reply})
            result, _ = self._once(f"{path}+{number}.look", use)
            told += [reply, result]
            steps.append({"tool": "look", "result": result})
        last = self._once(f"{path}+{spec.max_steps - 1}", partial(said, spec.model, told))
        return {"text": last, "steps": steps}


def plain(path: str) -> str:
    """The path without tries."""
    return path.replace("~2", "")


def output(node: PlannedNode, port: str, outputs: Mapping[str, Any]) -> Any:
    return node.spec.derive(port, outputs) if port in node.spec.derived else outputs[port]


def given(node: PlannedNode, port: str, binding: Binding, values: Values) -> Any:
    absent = isinstance(binding, Ref) and values[binding] is ABSENT
    return node.spec.inputs()[port].default if absent else look(binding, values)


def skips(node: PlannedNode, values: Values) -> bool:
    ports = node.spec.inputs()
    needed = any(
        isinstance(each, Ref) and values[each] is ABSENT and ports[port].required
        for port, each in node.inputs.items()
    )
    return needed or not holds(node.when, values)


def holds(condition: Condition | None, values: Values) -> bool:
    if condition is None:
        return True
    return predicate_of(condition)([look(each, values) for each in operands_of(condition)])
