"""Who goes first among the calls of one tenant: those that are due first.

The compiler gives each call of a run the slack that it has on its way through the graph, in tenths of a
second (`Generate.priority`), and policies move whole runs by 10,000: `high` down, `low` up. Both are turned
into seconds that a call may stand behind another that comes later:

    priority          0    50   1,000   10,000 (low)   10,030 (low, slack 3 s)   -10,000 (high)
    patience in s     0     5      60            120                       123             -120

A call is due when it came plus its patience, or when it must start to meet its deadline, whichever is sooner
(its slack, Liu and Layland's earliest deadline first with the path that remains). That is ageing too: two
minutes after a low call came nothing normal that comes then goes before it, so none starves.
"""

from __future__ import annotations

STEPS_PER_SECOND = 10
"""Of priorities, as `runtime.compiler.passes.order` gives them."""
POLICY_STEPS = 10_000
"""How far apart priorities of the policies are."""
POLICY_S = 120.0
"""What that is in seconds."""
MAX_SLACK_S = 60.0
"""Most that slack within a run counts for, so that it never outweighs a policy."""
LAST_POLICY = 3
"""Behind all others: what is read ahead."""


def policy_of(priority: int) -> int:
    """-1 for calls of runs that are more urgent than others, 0 for the rest, from 1 on for what can wait."""
    return max(-1, min(LAST_POLICY, (priority + POLICY_STEPS // 2) // POLICY_STEPS))


def patience_s(priority: int) -> float:
    """Seconds that a call of this priority may stand behind later ones. Grows with the priority."""
    policy = policy_of(priority)
    slack = (priority - policy * POLICY_STEPS) / STEPS_PER_SECOND
    return policy * POLICY_S + max(-MAX_SLACK_S, min(MAX_SLACK_S, slack))
