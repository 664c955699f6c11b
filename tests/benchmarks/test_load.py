"""The load generator counts what came back, and calls a wrong answer a failure."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from benchmarks.load import Plan, Spread, measure
from benchmarks.scenario import HttpRequest


def plan(port: int, must_contain: str = "word19", stream: bool = False) -> Plan:
    body = json.dumps({"model": "mock", "stream": stream}).encode()
    request = HttpRequest("127.0.0.1", port, "/v1/chat/completions", body, must_contain=must_contain)
    return Plan(request, connections=4, warmup_s=0.05, seconds=1.0, timeout_s=10.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_it_measures_a_server(upstream_port, stream, capsys):
    outcome = await measure(plan(upstream_port, stream=stream))
    assert capsys.readouterr().out == "started\n"
    assert outcome.completed > 10
    assert (outcome.failed, outcome.first_failure) == (0, "")
    assert 1.0 <= outcome.elapsed_s < 60
    assert 0 < outcome.first_byte_ms.p50 <= outcome.latency_ms.p50 <= outcome.latency_ms.p99
    assert outcome.client_cpu_s > 0


async def test_an_answer_without_the_expected_text_is_a_failure(upstream_port):
    outcome = await measure(plan(upstream_port, must_contain="no such text"))
    assert outcome.completed == 0
    assert outcome.failed > 0
    assert outcome.first_failure.startswith("200: ")


async def test_an_unreachable_server_is_a_failure_and_no_crash():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await measure(plan(closed.getsockname()[1]))
    assert outcome.completed == 0
    assert "Connect" in outcome.first_failure


async def test_a_server_that_hangs_up_is_a_failure():
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        outcome = await measure(plan(server.sockets[0].getsockname()[1]))
    assert outcome.completed == 0
    assert outcome.first_failure.startswith("ConnectionResetError")


def test_percentiles_are_nearest_rank():
    assert Spread.of([float(i) for i in range(100, 0, -1)]) == Spread(50.0, 95.0, 99.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    assert Spread.of([]) == Spread()
