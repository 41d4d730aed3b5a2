"""`GET /inbox`: how long a page of 100 takes in a large inbox, beside the same page in a small one. First page, deep cursor, `unacked`, one
rare type, `acked`. Rows are put straight into the tables of the folds. Run: `make bench BENCH=inbox [rows]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import httpx

from access.secrets import Keyring
from benchmarks.results import Figure, report
from benchmarks.rig import Rig, rig
from projections import cursors
from projections.cursors import Position
from runtime.postgres import connect
from schemas.keys import partition_of, record_key
from schemas.topics import FIRST_GENERATION
from triggers.provision import Tenant

SMALL = 10_000
_PAGES = 200
#: Every so many events are of the rare type; every so many are acknowledged.
_RARE, _ACKED = 1_000, 2

_FILL = """
INSERT INTO folds.inbox (organization, mode, generation, position, partition, event_id, type, received_at_ms, appended_at_ms,
                         ingested_offset, content_type, payload, payload_sha256)
SELECT %(organization)s, 'live', 1, n, 0, 'evt_' || gen_random_uuid(), CASE WHEN n %% %(rare)s = 0 THEN 'rare' ELSE 'common' END,
       1795000000000 + n, 1795000000000 + n, n, 'application/json',
       convert_to('{"order":' || n || ',"note":"' || repeat('x', 200) || '"}', 'UTF8'),
       sha256(n::text::bytea)
FROM generate_series(1, %(rows)s) n;
"""
_FILL_ACKS = """
INSERT INTO folds.acks (organization, mode, event_id, partition, position, acked_at_ms)
SELECT organization, mode, event_id, partition, position, 1795000000000 FROM folds.inbox
WHERE organization = %(organization)s AND position %% %(acked)s = 0;
"""
_FILL_UNACKED = """
INSERT INTO folds.unacked (organization, mode, generation, position, event_id, type)
SELECT organization, mode, generation, position, event_id, type FROM folds.inbox
WHERE organization = %(organization)s AND position %% %(acked)s <> 0;
"""


def main(rows: int) -> None:
    with rig() as bench:
        small, large = bench.tenants(2)
        fill(bench, small, SMALL)
        fill(bench, large, rows)
        bench.start_api()
        pages: Mapping[str, dict[str, str]] = {
            "first": {"status": "all"},
            "unacked": {"status": "unacked"},
            "acked": {"status": "acked"},
            "rare type": {"status": "all", "type": "rare"},
            "rare type, unacked": {"status": "unacked", "type": "rare"},
        }
        figures = []
        for name, query in pages.items():
            for deep in (False, True):
                of_small, of_large = (
                    p95_ms(bench, tenant, query, count * 3 // 4 if deep else 0) for tenant, count in ((small, SMALL), (large, rows))
                )
                figures.append(
                    Figure(f"{name}{', deep' if deep else ''}", of_large, "ms p95", f"{SMALL:,} rows", of_small, 1.5, less_is_better=True)
                )
    report("inbox", figures, f"{rows:,} rows")


def fill(bench: Rig, tenant: Tenant, rows: int) -> None:
    with connect(bench.system.settings.postgres, application="bench") as connection:
        values = {"organization": tenant.organization, "rows": rows, "rare": _RARE, "acked": _ACKED}
        for statement in (_FILL, _FILL_ACKS, _FILL_UNACKED):
            connection.execute(statement, values)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")


def p95_ms(bench: Rig, tenant: Tenant, query: dict[str, str], after: int) -> float:
    """Of pages after position `after`."""
    settings = bench.system.settings
    key = Keyring.from_setting(settings.master_keys.get_secret_value()).derive(b"cursor")
    partition = partition_of(record_key(tenant.organization), settings.kafka.partitions)
    bound = (tenant.organization, "live", query["status"], query.get("type", ""))
    taken: list[float] = []
    with httpx.Client(base_url=bench.system.url, headers={"X-API-Key": tenant.key}, timeout=30) as client:
        asked = {**query, "limit": "100", "cursor": cursors.encode(Position(FIRST_GENERATION, partition, after), key, *bound)}
        for _ in range(_PAGES):
            began_s = time.perf_counter()
            answer = client.get("/inbox", params=asked)
            taken.append(1000 * (time.perf_counter() - began_s))
            assert answer.status_code == 200, answer.text
    return sorted(taken)[int(0.95 * len(taken))]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
