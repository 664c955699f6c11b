"""The page and the picture of a run under load."""

from __future__ import annotations

import msgspec

from benchmarks.load_report import markdown, picture
from benchmarks.report import report
from benchmarks.runner import Sample, Timing
from benchmarks.scenario import Arm, Goal


def sample(arm: str, cpu: float) -> Sample:
    return Sample(
        "chat", arm, 0, 100, 1234.0, 1.0, 2.0, 3.0, 0.5, cpu, 50.0, 0.95, {"gateway": cpu - 0.1, "store": 0.1}
    )


ARMS = [Arm("ours", "our gateway", {}, list), Arm("lost", "not measured, for it is not there", {}, list)]
RUN = report(
    "gateway",
    "peer",
    Timing(),
    ARMS,
    [sample("ours", 0.5), sample("peer", 1.0)],
    [Goal("chat", "ours", "cpu_ms_per_request", "<=", 0.4)],
    {"stream other": "it broke off"},
    ["So much for that."],
)


def test_the_page_tells_goals_figures_and_what_was_not_measured() -> None:
    page = markdown(RUN, ["ours"])
    assert "| chat: CPU ms a request of `ours`, best repeat | <= 0.4 | 0.5 | 0.5 | **no** |" in page
    assert "| **ours** | 1,234\\* | 1 | 0.5 | 0.5 | 1 | 2 | 0.5 | 50.0 |" in page
    assert "| peer | 1,234\\* |" in page
    assert "CPU ms of a request by process: ours: gateway 0.4, store 0.1." in page
    assert "- `lost`: not measured, for it is not there." in page
    assert "- stream other: without figures, for it broke off" in page
    assert "The load generator was the bottleneck." in page
    assert page.endswith("\n\nSo much for that.\n")


def test_the_picture_has_a_bar_for_every_arm() -> None:
    drawn = picture(RUN, ["ours"])
    assert "chat: CPU ms a request" in drawn
    assert drawn.count("<rect") == 4


def test_a_report_of_before_there_were_goals_is_still_read() -> None:
    old = msgspec.to_builtins(RUN)
    del old["goals"], old["failed"], old["notes"]
    assert msgspec.convert(old, type(RUN)).goals == []
