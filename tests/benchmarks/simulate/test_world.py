"""The simulator: nothing is lost, equal seeds are equal, and a queue is as theory says."""

from __future__ import annotations

from itertools import count
from random import Random
from statistics import mean

import pytest

from benchmarks.simulate.figures import figures, jain, nearest
from benchmarks.simulate.policies import PowerOfTwo, RoundRobin
from benchmarks.simulate.replica import Speeds
from benchmarks.simulate.trace import BLOCK, Mix, SimulatedCall, trace
from benchmarks.simulate.world import MakePolicy, play
from cluster.admission.queue import OUTPUT_PRICE
from cluster.routing.policy import TokenRouting

MIX = Mix(calls_per_s=5, seconds=40, tenants=5)
POLICIES: list[MakePolicy] = [RoundRobin, PowerOfTwo, TokenRouting]


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize(("replicas", "gateways"), [(1, 1), (4, 2), (20, 3)])
def test_every_call_is_answered_once(make: MakePolicy, replicas: int, gateways: int) -> None:
    calls = trace(MIX, 1)
    done = play(calls, make, replicas, gateways=gateways).done
    assert sorted(each.call for each in done) == calls
    speeds = Speeds()
    for each in done:
        assert each.call.at + speeds.base_s <= each.first_at <= each.end_at
        assert 0 <= each.cached_tokens < each.call.prompt_tokens
        assert 0 <= each.replica < replicas
        least = (each.call.output_tokens - 1) * (speeds.base_s + speeds.per_sequence_s)
        assert each.end_at - each.first_at >= least * (1 - 1e-9)


@pytest.mark.parametrize("make", POLICIES)
def test_equal_seeds_are_equal(make: MakePolicy) -> None:
    assert trace(MIX, 3) == trace(MIX, 3)
    assert trace(MIX, 3) != trace(MIX, 4)
    assert play(trace(MIX, 3), make, 12, seed=1).done == play(trace(MIX, 3), make, 12, seed=1).done


def test_a_queue_of_one_server_waits_as_theory_says() -> None:
    """M/D/1: at load r the mean wait is r D / 2 (1 - r) (Pollaczek and Khinchine)."""
    service, load, random, numbers = 1.0, 0.7, Random(5), count()
    at, calls = 0.0, []
    for _ in range(30_000):
        at += random.expovariate(load / service)
        calls.append(SimulatedCall(at, "t", "", (next(numbers),), 1))
    speeds = Speeds(base_s=service, per_sequence_s=0.0, per_prompt_token_s=0.0, sequences=1)
    done = play(calls, RoundRobin, 1, speeds=speeds).done
    waited = mean(each.end_at - each.call.at - service for each in done)
    assert waited == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


def test_one_stream_and_eight_are_as_fast_as_measured() -> None:
    def tokens_per_s(streams: int) -> float:
        calls = [SimulatedCall(0.0, "t", "", (number,), 201) for number in range(streams)]
        done = play(calls, RoundRobin, 1).done
        return streams * 200 / (done[-1].end_at - done[0].first_at)

    assert tokens_per_s(1) == pytest.approx(19.1, rel=0.01)
    assert tokens_per_s(8) == pytest.approx(113, rel=0.05)


def test_what_was_read_is_kept_until_others_need_the_room() -> None:
    prompt, speeds = tuple(range(8)), Speeds(kv_tokens=16 * BLOCK)

    def cached(*between: tuple[int, ...]) -> int:
        prompts = [prompt, *between, prompt]
        calls = [SimulatedCall(10.0 * at, "t", "", blocks, 1) for at, blocks in enumerate(prompts)]
        return play(calls, RoundRobin, 1, speeds=speeds).done[-1].cached_tokens

    assert cached() == 7 * BLOCK
    assert cached(tuple(range(100, 108))) == 7 * BLOCK
    assert cached(tuple(range(100, 112))) < 7 * BLOCK


def test_a_call_that_comes_is_read_at_the_end_of_the_step_at_work() -> None:
    speeds = Speeds()
    calls = [SimulatedCall(0.0, "t", "", (1,), 200), SimulatedCall(2.0, "t", "", (2,), 1)]
    [second] = [each for each in play(calls, RoundRobin, 1).done if each.call == calls[1]]
    reading = speeds.base_s + speeds.per_sequence_s + BLOCK * speeds.per_prompt_token_s
    assert reading <= second.first_at - 2.0 <= reading + speeds.base_s + speeds.per_sequence_s


def test_tenants_that_wait_are_served_alike_as_far_as_theory_says() -> None:
    """One sends ten times as much as the other; both always wait."""
    speeds = Speeds(kv_tokens=2_000)
    names = ["much"] * 10 + ["little"]
    calls = [SimulatedCall(0.0, names[n % 11], "", tuple(range(n, n + 4)), 32) for n in range(330)]
    gap = play(calls, RoundRobin, 1, speeds=speeds).service_gap
    assert 0 < gap <= OUTPUT_PRICE * speeds.kv_tokens
    assert play(calls[:1], RoundRobin, 1).service_gap == 0


def test_ours_finds_more_in_the_caches_and_answers_sooner() -> None:
    mix = Mix(calls_per_s=14, seconds=100, tenants=20)
    found = {make: figures(play(trace(mix, 2), make, 10, gateways=2).done, 100) for make in POLICIES}
    ours = found.pop(TokenRouting)
    for other in found.values():
        assert ours["cached_share"] > 1.2 * other["cached_share"]
        assert ours["first_p95_s"] < other["first_p95_s"]


def test_shares_and_ranks() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0.0]) == 1
    assert [nearest(range(100), share) for share in (0, 0.5, 0.95, 1)] == [0, 50, 95, 99]
