"""`clustergraph pools`: who is served by the replicas of every model, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.messages import AdmissionState
from serve_apps.api.admin.pools import PoolsReport, PoolState
from serve_apps.cli.admin import AS_JSON, AdminClient, show
from serve_apps.cli.options import LOCAL_URL, URL

COLUMNS = (
    *("model", "replica", "in the engine", "KV tokens", "waiting"),
    *("wait", "tokens/s", "refused", "tenants"),
)


def pools(as_json: AS_JSON = False, url: URL = LOCAL_URL) -> None:
    """Show what every replica works on, and the queue in front of it."""
    report = AdminClient(url).get("pools", PoolsReport)
    show(report, as_json, COLUMNS, (row for pool in report.data for row in _rows(pool)))


def _rows(pool: PoolState) -> Iterator[tuple[str, ...]]:
    for number, replica in enumerate(pool.replicas, 1):
        queue = replica.admission or AdmissionState()
        yield (
            pool.model,
            str(number),
            _of(queue.sequences, queue.max_sequences),
            _of(queue.kv_tokens, queue.max_kv_tokens),
            _of(queue.waiting, queue.max_waiting),
            f"{queue.wait_s:.2f} s",
            f"{queue.tokens_per_s:.0f}" if queue.tokens_per_s else "-",
            str(queue.refused + queue.late),
            "\n".join(f"{each.tenant or '-'}: {each.waiting}" for each in queue.tenants) or "-",
        )


def _of(now: int, most: int) -> str:
    return f"{now} of {most}" if most else str(now)
