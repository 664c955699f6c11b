"""What the nodes of a run share."""

from cluster.messages import Usage
from runtime.executor.queue import EventQueue
from runtime.executor.run import Ledger, Run, RunScope


def a_run() -> Run:
    return Run(RunScope("r", 1e12, "", 0, False), EventQueue())


def test_a_ledger_adds_calls_up():
    ledger = Ledger()
    assert (ledger.opened, ledger.usage) == (False, Usage())
    ledger.called(5)
    ledger.called(7)
    assert ledger.usage == Usage(12)
    ledger.owe(Usage(6, 2))
    assert (ledger.opened, ledger.usage) == (True, Usage(11, 2))


def test_usage_is_that_of_ended_nodes_and_of_those_that_run():
    run, first, second = a_run(), Ledger(), Ledger()
    run.opened(first)
    run.opened(second)
    first.called(3)
    second.called(4)
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
