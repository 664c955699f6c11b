"""What of a run is done, what is to be kept, and who waits for it."""

import asyncio

from cluster.messages import Usage
from runtime.durability.model import Checkpoint
from runtime.executor.progress import OF_RUN, Progress, of_run


def done(*checkpoints: Checkpoint) -> dict[str, Checkpoint]:
    return {each.path: each for each in checkpoints}


def test_the_last_try_of_a_node_is_known():
    progress = Progress(done(Checkpoint("a~2", 2), Checkpoint("a~10", 10), Checkpoint("a~2.b~3", 3)))
    assert (progress.tries("a"), progress.tries("a~2.b"), progress.tries("b")) == (10, 3, 1)


def test_parts_of_all_tries_count_for_the_node():
    progress = Progress(
        done(
            Checkpoint("a+0", {}, Usage(1, 2)),
            Checkpoint("a~2", 2, Usage(10)),
            Checkpoint("a~2+0", {}, Usage(100, 0, 7)),
            Checkpoint("b", {}, Usage(1000)),
            Checkpoint("c+0", {}),
        )
    )
    assert progress.spent("a") == Usage(111, 2, 7)
    assert progress.spent("b") == progress.spent("c") == Usage()


def test_what_was_noted_is_taken_once_and_the_newest_of_a_path_only():
    woken = []
    progress = Progress(keeps=True, wake=lambda: woken.append(1))
    progress.note(Checkpoint("a+pass", 1))
    progress.note(Checkpoint("b", {}))
    progress.note(Checkpoint("a+pass", 2))
    assert progress.take()[0] == [Checkpoint("a+pass", 2), Checkpoint("b", {})]
    assert progress.take()[0] == []
    assert len(woken) == 3


async def test_a_node_with_effects_waits_until_all_before_is_kept():
    progress = Progress(keeps=True, commits=True)
    await progress.committed()
    progress.note(Checkpoint("a", {}))
    waiting = asyncio.create_task(progress.committed())
    await asyncio.sleep(0)
    _, first = progress.take()
    progress.note(Checkpoint("b", {}))
    also = asyncio.create_task(progress.committed())
    await asyncio.sleep(0)
    assert not waiting.done()
    progress.kept(first)
    await waiting
    assert not also.done()
    progress.kept(progress.take()[1])
    await also


async def test_nobody_waits_where_nothing_is_kept_step_by_step():
    progress = Progress(keeps=True)
    progress.note(Checkpoint("a", {}))
    asking = asyncio.create_task(progress.committed())
    await asyncio.sleep(0)
    assert asking.done()


def test_what_is_kept_of_the_run_as_a_whole():
    assert of_run(Usage(3), started=1.5) == Checkpoint(OF_RUN, {"started": 1.5}, Usage(3))
    assert Progress(done(of_run(Usage(3)))).spent("") == Usage(3)
