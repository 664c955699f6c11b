"""What the nodes of a run share."""

import pytest

from cluster.messages import Usage
from runtime.errors import BudgetExceeded
from runtime.executor.queue import EventQueue
from runtime.executor.run import Ledger, Run, RunScope


def a_run() -> Run:
    return Run(RunScope("r", 1e12, "", 0, False), EventQueue())


def test_a_ledger_adds_calls_up():
    ledger = Ledger()
    assert (ledger.opened, ledger.usage) == (False, Usage())
    ledger.called("m", 5)
    ledger.called("m", 7)
    assert ledger.usage == Usage(12)
    ledger.owe(Usage(6, 2))
    assert (ledger.opened, ledger.usage) == (True, Usage(11, 2))


def test_usage_is_that_of_ended_nodes_and_of_those_that_run():
    run, first, second = a_run(), Ledger(), Ledger()
    run.opened(first)
    run.opened(second)
    first.called("m", 3)
    second.called("m", 4)
    run.settled(first)
    assert run.usage == Usage(7)
    second.owe(Usage(4, 1))
    run.settled(second)
    assert run.usage == Usage(7, 1)


def test_nodes_at_work_are_those_that_do_not_wait_for_others():
    run = a_run()
    run.running = {"all": "", "all[0].pick": "all", "all[0].pick.1.say": "all[0].pick", "other": ""}
    assert run.at_work() == ["all[0].pick.1.say", "other"]


def test_what_is_inside_a_node_is_forgotten():
    run = a_run()
    run.running = {"all": "", "all[0].say": "all", "all.x": "all", "all2": "", "al": ""}
    run.forget_inside("all")
    assert list(run.running) == ["all", "all2", "al"]


def test_what_earlier_attempts_owe_is_owed_once():
    run, ledger = Run(a_run().scope, EventQueue(), owed=Usage(100, 10)), Ledger()
    run.opened(ledger)
    ledger.restore(Usage(30, 5))
    ledger.called("m", 7)
    assert ledger.usage == Usage(37, 5)
    assert run.usage == Usage(107, 10)
    assert run.done_usage == Usage(100, 10)
    assert ledger.note() == Usage(7)
    assert ledger.note() == Usage()
    assert run.done_usage == Usage(107, 10)
    run.settled(ledger)
    assert run.usage == run.done_usage == Usage(107, 10)


def test_a_run_may_owe_what_its_budget_says():
    run, ledger = Run(RunScope("r", 1e12, "", 0, False, token_budget=10), EventQueue()), Ledger()
    run.opened(ledger)
    run.afford(10)
    ledger.called("m", 8)
    run.afford(2)
    with pytest.raises(BudgetExceeded, match="owes 8 tokens and the next call begins with 3: its"):
        run.afford(3)
    ledger.owe(Usage(8, 3))
    with pytest.raises(BudgetExceeded, match="owes 11 tokens: its budget is 10"):
        run.afford()


def test_a_run_waits_for_people_where_nothing_else_is_at_work():
    run = a_run()
    assert not run.waits_for_people
    run.running = {"all": "", "all[0].ask": "all", "other": ""}
    run.waiting = {"all[0].ask"}
    assert not run.waits_for_people
    del run.running["other"]
    assert run.waits_for_people
