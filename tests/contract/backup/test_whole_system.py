"""A backup of a system at work, restored into another that goes on where it stood; and a Postgres that goes back to an older dump."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from runtime.postgres import connect
from runtime.settings import Settings
from tests.contract.backup.rig import control_of, log_of
from tests.contract.rebuild.rig import fetch, sums
from triggers.devstack.ports import free_ports
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Answer, Received, Receiver
from triggers.system import System, argv, until

#: One retry a minute after the first attempt: time enough for a backup, less than a restore need take.
SCHEDULE = {"TRIGGERS_DELIVERY__DELAYS_S": "[5, 60]", "TRIGGERS_DELIVERY__SCHEDULE_S": "[60, 60]"}
EVENTS = 30
#: Events that were posted and not delivered yet, while a backup is made in the middle of them.
UNDER_WAY = 30
WAIT_S = 120.0

pytestmark = [pytest.mark.verify, pytest.mark.timeout(600)]


@contextmanager
def running(environment: Mapping[str, str], folder: Path, *, schedule: Mapping[str, str] = SCHEDULE) -> Iterator[System]:
    folder.mkdir(exist_ok=True)
    made = {
        **environment, **schedule, "PATH": "/usr/bin:/bin", "TRIGGERS_API__PORT": str(free_ports(1)[0]),
        "TRIGGERS_PROCESSOR__DATA_DIR": str(folder / "processors"),
    }  # fmt: skip
    system = System(made, folder, announce=print)
    system.prepare()
    system.start()
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


def run(system: System, *arguments: str | Path) -> dict[str, Any]:
    finished = subprocess.run(argv(*map(str, arguments)), env=system.environment, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def client_of(system: System, tenant: Tenant) -> httpx.Client:
    return httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=30)


def post(client: httpx.Client, number: int, event_type: str = "order.paid") -> str:
    event = {"type": event_type, "payload": {"n": number}, "idempotency_key": f"key-{number}"}
    answer = client.post("/events", json=event)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def inbox(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    answer = client.get("/inbox", params={"status": "all", **parameters})
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def ids(page: Mapping[str, Any]) -> list[str]:
    return [event["id"] for event in page["events"]]


def at_rest(settings: Settings, deliveries: int) -> None:
    """Until as many attempts are folded, and nothing moves any more."""
    until(lambda: fetch(settings, "SELECT count(*) FROM attempts") == [(deliveries,)], WAIT_S, f"{deliveries} attempts", 0.3)
    last: list[tuple[dict[tuple[str, int], int], dict[str, str]]] = [({}, {})]

    def unchanged() -> bool:
        now = {place: len(records) for place, records in log_of(settings).items()}, sums(settings)
        same, last[0] = now == last[0], now
        return same

    until(unchanged, WAIT_S, "the log coming to rest", 1.5)


def of(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """With the database of these settings."""
    return {**environment, "TRIGGERS_POSTGRES__DSN": settings.postgres.dsn.get_secret_value(), "PATH": "/usr/bin:/bin"}


def test_a_restored_system_goes_on_where_the_backup_stands(
    environments: tuple[dict[str, str], dict[str, str]], empty_source: Settings, target: Settings, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        receiver.answers["/later"] = failing_first()
        with running(of(environments[0], empty_source), tmp_path / "source") as system:
            tenant = make_tenant(system.settings, "whole")
            make_endpoint(system.settings, tenant.organization, receiver.url("/now"), event_types=["order.paid"])
            make_endpoint(system.settings, tenant.organization, receiver.url("/fifo"), event_types=["order.paid"], fifo=True)
            make_endpoint(system.settings, tenant.organization, receiver.url("/later"), event_types=["order.late"])
            with client_of(system, tenant) as client:
                posted = [post(client, number) for number in range(EVENTS)]
                assert run(system, "backup", tmp_path / "backup", "--json")["run"] == 1  # while it is at work
                until(lambda: ids(inbox(client, limit=1000)) == posted, WAIT_S, "the inbox")
                assert client.post("/inbox/ack", json={"ids": posted[:7]}).json()["acknowledged"] == 7
                cursor = inbox(client, limit=10)["next_cursor"]
                until(lambda: len(receiver.of("/fifo")) == len(receiver.of("/now")) == EVENTS, WAIT_S, "deliveries")
                late = post(client, EVENTS, "order.late")
                until(lambda: len(receiver.of("/later")) == 1, WAIT_S, "the first attempt")
                at_rest(system.settings, 2 * EVENTS + 1)
                made = run(system, "backup", tmp_path / "backup", "--json")
                assert (made["run"], made["records"]["events.ingested"]) == (2, log_length(system.settings, "events.ingested"))
        assert len(receiver.of("/later")) == 1, "the retry was due before the backup was done: the machine is too slow for this test"
        before, control = sums(system.settings), control_of(system.settings)

        environment = {**of(environments[1], target), **SCHEDULE}
        restoring = System(environment, tmp_path)
        run(restoring, "restore", tmp_path / "backup", "--json")
        assert sums(restoring.settings) == before
        assert control_of(restoring.settings) == control
        with running(environment, tmp_path / "target") as restored, client_of(restored, tenant) as client:
            assert ids(inbox(client, limit=1000, cursor=cursor)) == [*posted[10:], late]
            assert ids(inbox(client, limit=1000, status="acked")) == posted[:7]
            again = post(client, 3)  # Redis is empty, so dedup has to know it
            until(lambda: client.get(f"/events/{again}").json()["status"] != "pending", WAIT_S, "dedup")
            found = client.get(f"/events/{again}").json()
            assert (found["status"], found["original_id"]) == ("duplicate", posted[3]), found
            fresh = post(client, EVENTS + 1)
            until(lambda: len(receiver.of("/fifo")) == len(receiver.of("/now")) == EVENTS + 1, WAIT_S, "the new event's deliveries")
            until(lambda: len(receiver.of("/later")) == 2, WAIT_S, "the retry")
            at_rest(restored.settings, 2 * (EVENTS + 1) + 2)
            for path, wanted in (("/now", sorted([*posted, fresh])), ("/later", [late, late])):
                assert sorted(one.headers["webhook-id"] for one in receiver.of(path)) == wanted
            assert [one.headers["webhook-id"] for one in receiver.of("/fifo")] == [*posted, fresh]
            assert run(restored, "rebuild", "all", "--verify-only", "--json")["equal"]


def test_a_backup_taken_in_the_middle_of_everything_loses_no_event_and_repeats_none(
    environments: tuple[dict[str, str], dict[str, str]], empty_source: Settings, target: Settings, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        receiver.answers["/shaky"] = failing_first(every=4)  # fewer in a row than open its circuit breaker
        quick = {**of(environments[0], empty_source), "TRIGGERS_PROCESSOR__BATCH_SIZE_MAX": "5"}
        with running(quick, tmp_path / "source", schedule={}) as system:
            tenant = make_tenant(system.settings, "busy")
            for path in ("/shaky", "/fifo"):
                make_endpoint(system.settings, tenant.organization, receiver.url(path), event_types=["order.paid"], fifo=path == "/fifo")
            end = threading.Event()
            with client_of(system, tenant) as client, ThreadPoolExecutor() as pool:

                def keeps_up(number: int) -> bool:
                    """No more at once than the slower endpoint takes: what is left when the backup is made can be worked off."""
                    until(lambda: end.is_set() or number < len(receiver.of("/fifo")) + UNDER_WAY, WAIT_S, "deliveries")
                    return not end.is_set()

                numbers = itertools.takewhile(keeps_up, itertools.count())
                posting = pool.submit(lambda: [post(client, number) for number in numbers])
                until(lambda: len(receiver.of("/fifo")) > 20, WAIT_S, "deliveries")
                run(system, "backup", tmp_path / "backup", "--json")
                end.set()
                assert posting.result(WAIT_S)
        environment = of(environments[1], target)
        run(System(environment, tmp_path), "restore", tmp_path / "backup", "--json")
        ingested = [one for (topic, _), records in log_of(target).items() if topic == "events.ingested" for one in records]
        events = [json.loads(one.value or b"") for one in ingested]
        wanted = sorted(str(event["id"]) for event in events)
        posted = [event["id"] for event in events if event["type"] == "order.paid"]  # others tell of the endpoint that fails
        assert len(posted) > 20
        with running(environment, tmp_path / "target", schedule={}) as restored:
            here = "SELECT event_id FROM inbox ORDER BY 1"
            until(lambda: {*wanted} <= {one for (one,) in fetch(target, here)}, WAIT_S, "the inbox", 0.5)
            ended = "SELECT count(DISTINCT (event_id, endpoint_id)) FROM attempts WHERE outcome = 'delivered'"
            until(lambda: fetch(target, ended) == [(2 * len(posted),)], WAIT_S, "every delivery")
            assert run(restored, "rebuild", "all", "--verify-only", "--json")["equal"]
            since = "SELECT count(*) FROM inbox WHERE NOT event_id = ANY(%s) AND type NOT LIKE 'triggers.%%'"
            assert fetch(target, since, wanted) == [(0,)]  # what came since tells of endpoints
            assert fetch(target, "SELECT count(*) FROM duplicates WHERE type NOT LIKE 'triggers.%%'") == [(0,)]


def log_length(settings: Settings, topic: str) -> int:
    return sum(len(records) for (name, _), records in log_of(settings).items() if name == topic)


def failing_first(*, every: int = 1) -> Answer:
    """An event is refused the first time it comes; with `every`, one in so many."""
    seen: set[str] = set()

    def answer(received: Received, _: int) -> int:
        came_before = received.headers["webhook-id"] in seen
        seen.add(received.headers["webhook-id"])
        return 204 if came_before or len(seen) % every else 500

    return answer


def copy_database(settings: Settings, old: str, new: str) -> None:
    """`new` becomes a copy of `old`, in the place of what it was."""
    dsn = SecretStr(make_conninfo(settings.postgres.dsn.get_secret_value(), dbname="postgres"))
    with connect(settings.postgres.model_copy(update={"dsn": dsn}), application="test") as admin:
        admin.autocommit = True
        admin.execute("SET statement_timeout = 0")
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(new)))
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(new), sql.Identifier(old)))


def test_postgres_from_an_older_dump_folds_again_what_came_since_and_lacks_the_control_plane_of_since(
    target: Settings, environments: tuple[dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    environment, name = of(environments[1], target), str(conninfo_to_dict(target.postgres.dsn.get_secret_value())["dbname"])
    with Receiver() as receiver:
        with running(environment, tmp_path / "before") as system:
            tenant = make_tenant(system.settings, "older")
            make_endpoint(system.settings, tenant.organization, receiver.url("/now"))
            with client_of(system, tenant) as client:
                posted = [post(client, number) for number in range(EVENTS)]
                until(lambda: ids(inbox(client, limit=1000)) == posted, WAIT_S, "the inbox")
                at_rest(system.settings, EVENTS)
        copy_database(target, name, f"{name}_dump")
        with running(environment, tmp_path / "before") as system, client_of(system, tenant) as client:
            later = make_tenant(system.settings, "made later")
            posted += [post(client, number) for number in range(EVENTS, 2 * EVENTS)]
            until(lambda: ids(inbox(client, limit=1000)) == posted, WAIT_S, "the inbox")
            assert client.post("/inbox/ack", json={"ids": posted[-5:]}).json()["acknowledged"] == 5
            at_rest(system.settings, 2 * EVENTS)
            last = inbox(client, limit=40)["next_cursor"]
        before = sums(target)
        copy_database(target, f"{name}_dump", name)
        assert sums(target) != before
        with running(environment, tmp_path / "before") as system, client_of(system, tenant) as client:
            until(lambda: sums(target) == before, WAIT_S, "folding again", 0.5)
            assert ids(inbox(client, limit=1000, cursor=last)) == posted[40:]
            assert ids(inbox(client, limit=1000, status="acked")) == posted[-5:]
            assert run(system, "rebuild", "all", "--verify-only", "--json")["equal"]
            with client_of(system, later) as lost:
                assert lost.get("/inbox").status_code == 401
        assert len(receiver.of("/now")) == 2 * EVENTS
