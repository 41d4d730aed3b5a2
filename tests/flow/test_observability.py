"""What can be seen of a running system: log lines, ids carried through, metrics, sockets, and no secret anywhere."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from prometheus_client import REGISTRY as metrics_here
from psycopg import sql
from redis import Redis

from access import keys, operators
from runtime.clock import SYSTEM
from runtime.postgres import connect
from schemas import ids
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED, EVENTS_INGESTED, INBOX_ACKS, declared, names, retry_topic
from tests.backends import Servers
from tests.flow.logs import bad_lines, lines
from tests.flow.topics import read_topic
from triggers.devstack.stack import Stack
from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import PROCESSES, System, until

#: Every process's line about an event once it has been received at the second attempt.
STAGES = {
    ("api", "event.appended"): 1,
    ("dedup", "event.deduplicated"): 1,
    ("project", "event.folded"): 4,  # accepted, planned, two attempts
    ("delivery", "delivery.attempted"): 2,
}


@pytest.fixture
def stack(servers: Servers) -> Stack:
    if servers.stack is None:
        pytest.skip("only the embedded servers are ours to look into")
    return servers.stack


def test_request_and_trace_id_are_in_each_line_record_and_webhook_that_an_event_leads_to(system: System, receiver: Receiver) -> None:
    tenant = make_tenant(system.settings, "trace")
    make_endpoint(system.settings, tenant.organization, receiver.url())
    receiver.answers["/webhooks"] = lambda _one, before: 500 if before == 0 else 204
    request_id, trace_id = "request-17", os.urandom(16).hex()
    sent = {"X-API-Key": tenant.key, "X-Request-Id": request_id, "traceparent": f"00-{trace_id}-{'cd' * 8}-01"}
    answer = httpx.post(f"{system.url}/events", json={"type": "trace.test", "payload": 1}, headers=sent)
    event_id = answer.json()["id"]
    assert answer.headers["X-Request-Id"] == request_id
    until(lambda: len(receiver.of()) == 2, 30, "the second attempt")
    assert {one.headers["traceparent"].split("-")[1] for one in receiver.of()} == {trace_id}

    def told() -> dict[tuple[str, str], list[dict[str, object]]]:
        found: dict[tuple[str, str], list[dict[str, object]]] = {}
        for name in PROCESSES:
            for line in lines(system.supervisor.log_path(name)):
                if line.get("event_id") == event_id:
                    found.setdefault((name, str(line["event"])), []).append(line)
        return found

    until(lambda: {stage: len(found) for stage, found in told().items()} == STAGES, 20, "every stage's line", 0.2)
    for stage, found in told().items():
        for line in found:
            assert line["request_id"] == request_id, (stage, line)
            assert trace_id in f"{line.get('trace_id')} {line.get('traceparent')}", (stage, line)

    until(lambda: httpx.get(f"{system.url}/events/{event_id}", headers=sent).json()["status"] == "accepted", 20, "the event")
    httpx.post(f"{system.url}/inbox/ack", json={"ids": [event_id]}, headers=sent).raise_for_status()
    first_delay = retry_topic(system.settings.delivery.delays_s[0])
    counts = {EVENTS_INGESTED: {1}, EVENTS_ACCEPTED: {1}, DELIVERIES_ATTEMPTS: {3}, first_delay: {1, 2}, INBOX_ACKS: {1}}
    for topic, expected in counts.items():  # a retry whose jitter is left over when its delay has passed hops once more
        headers = [dict(record.headers) for record in read_topic(system.settings, topic) if event_id.encode() in (record.value or b"")]
        assert len(headers) in expected, topic
        assert {one["request-id"] for one in headers} == {request_id.encode()}, topic
        assert {(one["traceparent"] or b"").split(b"-")[1] for one in headers} == {trace_id.encode()}, topic


def test_every_line_of_every_process_is_json_and_no_exception_was_left_to_the_interpreter(system: System) -> None:
    for name in system.supervisor.names():
        path = system.supervisor.log_path(name)
        assert path.stat().st_size, name
        assert bad_lines(path) == []


def test_every_process_exports_the_whole_catalogue_and_listens_nowhere_else(system: System) -> None:
    """Faust brings a web server of its own: it must stay off."""
    ours = {family.name for family in metrics_here.collect() if family.name.startswith("triggers_")}
    assert len(ours) > 20
    for name in PROCESSES:
        until(lambda one=name: bool(_listening(system.supervisor.pid(one))), 20, f"{name} serving its metrics")  # type: ignore[misc]
        listening = _listening(system.supervisor.pid(name))
        assert {address.ip for address in listening} == {"127.0.0.1"}, name
        assert len(listening) == 1, f"{name} listens on {listening}"
        page = httpx.get(f"http://127.0.0.1:{listening.pop().port}/metrics", timeout=5).text
        assert ours <= {re.sub("_total$", "", found) for found in re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)}, name


def test_the_servers_listen_on_their_own_ports_of_this_machine_only(stack: Stack) -> None:
    ports = {
        "Kafka": {stack.kafka.port, stack.kafka.controller_port},
        "PostgreSQL": {stack.postgres.port},
        "Redis": {stack.redis.port},
    }
    for server in stack.servers:
        listening = _listening(server.pid)
        assert {address.port for address in listening} == ports[server.name]
        assert all(address.ip.endswith("127.0.0.1") for address in listening), listening


def _listening(pid: int) -> set[Any]:
    """Of a process and everything below it."""
    process = psutil.Process(pid)
    return {
        connection.laddr
        for one in (process, *process.children(recursive=True))
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_no_secret_is_in_anything_the_system_writes_shows_or_stores(system: System, stack: Stack, receiver: Receiver) -> None:
    """Each secret is used, and servers fail while it is; then all artefacts are searched. Two files of the stack may hold its own."""
    tenant = make_tenant(system.settings, "canary")
    _, webhook_secret = make_endpoint(system.settings, tenant.organization, receiver.url())
    with connect(system.settings.postgres, application="test") as connection:
        random = os.urandom(keys.RANDOM_BYTES)
        _, token = operators.create(connection, ids.operator_id(SYSTEM.now_ms(), random[:10]), name="canary", random=random, actor="test")
    wrong = tenant.key[:-4] + ("aaaa" if tenant.key[-4:] != "aaaa" else "bbbb")
    bare = webhook_secret.removeprefix("whsec_")
    passwords = [str(psycopg.conninfo.conninfo_to_dict(stack.postgres.dsn)["password"]), str(httpx.URL(stack.redis.url).password)]
    secret = {
        "API key": tenant.key.encode(),
        "wrong API key": wrong.encode(),
        "operator's token": token.encode(),
        "webhook secret": bare.encode(),
        "webhook secret, decoded": base64.b64decode(bare),
        "master key": system.settings.master_keys.get_secret_value().split(":")[1].encode(),
        "master key, decoded": base64.b64decode(system.settings.master_keys.get_secret_value().split(":")[1]),
        "Postgres's password": passwords[0].encode(),
        "Redis's password": passwords[1].encode(),
    }
    answers = _use(system, stack, receiver, tenant.key, wrong, token)

    shown: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
        "answer": lambda: iter([(str(answer.url), answer.content + repr(answer.headers).encode()) for answer in answers]),
        "webhook": lambda: iter([(one.path, one.body + repr(one.headers).encode()) for one in receiver.received]),
        "log": lambda: ((name, system.supervisor.log_path(name).read_bytes()) for name in system.supervisor.names()),
        "command line": lambda: _command_lines(system, stack),
        "topic": lambda: _topics(system),
        "table": lambda: _tables(stack),
        "Redis": lambda: _redis(stack),
        "dedup's folder": lambda: _files(system.settings.processor.data_dir),
        "metrics": lambda: iter([("api", httpx.get(f"{system.url}/metrics").content)]),
    }
    leaks = [
        f"{what} in {kind} {where}"
        for kind, artefacts in shown.items()
        for where, content in artefacts()
        for what, value in secret.items()
        if value in content
    ]
    assert not leaks, leaks
    kept: set[str] = set()
    for where, content in _files(stack.state_dir):
        if found := [what for what, value in secret.items() if value in content]:
            mode = stat.S_IMODE(Path(where).stat().st_mode)
            assert Path(where).name in ("secrets.json", "redis.conf"), (where, found)
            assert not mode & 0o077, f"{where}, which holds the {found}, has mode {mode:o}"
            kept |= set(found)
    assert kept == {"master key", "Postgres's password", "Redis's password"}, "the search finds what is there"


def _use(system: System, stack: Stack, receiver: Receiver, key: str, wrong: str, token: str) -> list[httpx.Response]:
    """What was answered to every secret, while the servers are there and while they are not."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        event = {"type": "canary", "payload": 1}
        answers.append(httpx.post(f"{system.url}/events", json=event, headers={"X-API-Key": key}, timeout=20))
        answers.append(httpx.post(f"{system.url}/events", json=event, headers={"X-API-Key": wrong}, timeout=20))
        answers.append(httpx.get(f"{system.url}/inbox", headers={"X-API-Key": key}, timeout=20))
        answers.append(httpx.get(f"{system.url}/operator/organizations", headers={"Authorization": f"Bearer {token}"}, timeout=20))

    ask()
    assert [answer.status_code for answer in answers[:2]] == [201, 401]
    until(lambda: bool(receiver.of()), 30, "the webhook")
    for server in (stack.postgres, stack.redis):
        server.kill()
        try:
            ask()
        finally:
            server.bring_up()
    ask()
    until(lambda: httpx.get(f"{system.url}/health/ready").status_code == 200, 30, "the API being ready again", 0.2)
    return answers


def _command_lines(system: System, stack: Stack) -> Iterator[tuple[str, bytes]]:
    for pid in [*(system.supervisor.pid(name) for name in system.supervisor.names()), *(server.pid for server in stack.servers)]:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            yield process.name(), "\0".join(process.cmdline()).encode()


def _topics(system: System) -> Iterator[tuple[str, bytes]]:
    for topic in names(declared(system.settings.delivery.delays_s)):
        for record in read_topic(system.settings, topic):
            yield topic, b"".join((record.key or b"", record.value or b"", repr(record.headers).encode()))


def _tables(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Every table of ours, as text and with its bytes as they are."""
    with psycopg.connect(stack.postgres.dsn) as link:
        tables = link.execute("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('control', 'folds')").fetchall()
        assert len(tables) > 8
        for schema, table in tables:
            for row in link.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))):
                yield table, b" ".join(value if isinstance(value, bytes) else str(value).encode() for value in row)


def _redis(stack: Stack) -> Iterator[tuple[str, bytes]]:
    with Redis.from_url(stack.redis.url) as link:
        for key in link.scan_iter(count=1_000):
            yield key.decode(errors="replace"), key + (link.dump(key) or b"")


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            try:
                yield str(path), path.read_bytes()
            except FileNotFoundError:
                continue  # compacted away
