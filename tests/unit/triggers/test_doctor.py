"""What the doctor says of settings, clocks and sockets, and how it runs its checks. No server."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.settings import Settings
from triggers.doctor import findings
from triggers.doctor.configured import configured
from triggers.doctor.findings import Finding, Said, bad, ok, warn
from triggers.doctor.machine import Listener, _compare, command_of, judge_sockets, listeners
from triggers.system import settings_of

GOOD_KEY = base64.b64encode(bytes(range(32))).decode()
SOUND = {
    "TRIGGERS_ENVIRONMENT": "production",
    "TRIGGERS_MASTER_KEYS": f"k1:{GOOD_KEY}",
    "TRIGGERS_KAFKA__REPLICATION_FACTOR": "3",
    "TRIGGERS_KAFKA__MIN_INSYNC_REPLICAS": "2",
    "TRIGGERS_POSTGRES__DSN": "postgresql://u@db.example/triggers?sslmode=verify-full",
    "TRIGGERS_REDIS__URL": "rediss://:secret-canary@redis.example/0",
}


def said(**changed: str) -> list[Said]:
    return [one for one in configured(settings_of({**SOUND, **changed})) if one[0] != "ok"]


def test_a_sound_production_has_nothing_to_complain_about() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("name", "value", "severity", "what"),
    [
        ("ENVIRONMENT", "prod", "fail", "treated as development"),
        ("MASTER_KEYS", "", "fail", "no master key"),
        ("MASTER_KEYS", f"k1:{base64.b64encode(bytes(32)).decode()}", "fail", "k1 is not random"),
        ("MASTER_KEYS", f"local:{GOOD_KEY}", "fail", "'local', as in development"),
        ("KAFKA__REPLICATION_FACTOR", "1", "fail", "above replication"),
        ("KAFKA__MIN_INSYNC_REPLICAS", "1", "fail", "does not survive"),
        ("KAFKA__MIN_INSYNC_REPLICAS", "3", "warn", "stops every write"),
        ("KAFKA__HEARTBEAT_INTERVAL_S", "9", "warn", "heartbeats"),
        ("DELIVERY__ALLOW_INSECURE_ENDPOINTS", "true", "fail", "can reach this network"),
        ("DELIVERY__EGRESS_ALLOWED_NETWORKS", '["10.1.0.0/16"]', "warn", "10.1.0.0/16"),
        ("DELIVERY__EGRESS_ALLOWED_NETWORKS", '["169.254.0.0/17"]', "fail", "metadata"),
        ("DELIVERY__EGRESS_ALLOWED_NETWORKS", '["::/0"]', "fail", "metadata"),
        ("API__TRUSTED_PROXIES", '["0.0.0.0/0"]', "fail", "X-Forwarded-For"),
        ("API__CORS_ORIGINS", '["*"]', "warn", "every origin"),
        ("API__DOCS_ENABLED", "true", "warn", "/docs"),
        ("ACCESS__FAILED_KEYS_PER_MINUTE_MAX", "0", "warn", "guesses"),
        ("POSTGRES__DSN", "postgresql://u:secret-canary@db.example/triggers", "warn", "db.example may be spoken to in clear"),
        ("REDIS__URL", "redis://:secret-canary@redis.example/0", "warn", "redis.example is spoken to in clear"),
        ("REDIS__URL", "redis://127.0.0.1/0", "warn", "no password"),
    ],
)
def test_a_dangerous_setting_is_found_with_what_to_do_and_without_secrets(name: str, value: str, severity: str, what: str) -> None:
    found = said(**{f"TRIGGERS_{name}": value})
    assert any(one[0] == severity and what in one[1] for one in found), found
    assert all(one[2] for one in found)
    assert "secret-canary" not in str(found)
    assert GOOD_KEY not in str(found)


def test_a_check_that_hangs_or_breaks_hides_nothing_of_the_others() -> None:
    never = threading.Event()

    def hangs(_: Settings) -> Iterator[Said]:
        yield warn("seen before it hung", "look")
        never.wait()

    def breaks(_: Settings) -> Iterator[Said]:
        yield ok("half")
        raise OSError("gone")

    def sound(_: Settings) -> Iterator[Said]:
        yield ok("fine")

    began_s = time.monotonic()
    found = findings.run(settings_of({}), {"a": hangs, "b": breaks, "c": sound}, 0.3)
    took_s = time.monotonic() - began_s
    never.set()
    assert took_s < 1.5
    assert [(one.check, one.severity) for one in found] == [("a", "warn"), ("a", "fail"), ("b", "ok"), ("b", "fail"), ("c", "ok")]
    assert "no answer within 0.3 s" in found[1].what
    assert "gone" in found[3].what
    assert findings.worst(found) == "fail"
    assert findings.worst(found[:1]) == "warn"
    assert findings.worst([]) == "ok"
    assert Finding("x", *bad("what", "do")).do == "do"


@pytest.mark.parametrize(("skew_s", "severity"), [(0.0, "ok"), (-2.0, "warn"), (3.0, "warn"), (100.0, "fail"), (-100.0, "fail")])
def test_a_clock_that_is_off_is_found(skew_s: float, severity: str) -> None:
    ((found, what, _),) = _compare("PostgreSQL", lambda: time.time() + skew_s, settings_of({}))
    assert found == severity
    if skew_s:
        assert ("ahead of" if skew_s > 0 else "behind") in what


def test_processes_of_ours_are_told_by_their_command_line() -> None:
    for words, command in (
        (["python", "-m", "triggers", "process", "dedup"], "process dedup"),
        (["/x/python3", "/x/bin/triggers", "serve"], "serve"),
        (["triggers", "deliver"], "deliver"),
        (["python", "-m", "triggers", "doctor"], None),
        (["python", "-m", "other", "triggers", "serve"], None),
        (["vi", "triggers"], None),
        ([""], None),
    ):
        assert command_of("\0".join([*words, ""]).encode()) == command, words


def test_a_second_port_and_fausts_are_found_and_open_metrics_in_production() -> None:
    def judged(*found: Listener, environment: str = "development") -> list[Said]:
        return [one for one in judge_sockets(list(found), settings_of({"TRIGGERS_ENVIRONMENT": environment})) if one[0] != "ok"]

    here, everywhere = Listener(1, "process dedup", "127.0.0.1", 9100), Listener(1, "process dedup", "0.0.0.0", 6066)
    assert judged(here) == []
    assert [one[0] for one in judged(here, everywhere)] == ["fail", "fail"]
    api, opened = Listener(2, "serve", "::", 8000), Listener(3, "deliver", "0.0.0.0", 9100)
    assert judged(api, opened) == []
    assert [one[0] for one in judged(api, opened, environment="production")] == ["warn", "warn"]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no /proc here")
def test_a_process_that_listens_is_seen_with_its_address_and_port(tmp_path: Path) -> None:
    script = tmp_path / "triggers"
    script.write_text(
        "import socket, sys\n"
        "one, other = socket.create_server(('127.0.0.1', 0)), socket.create_server(('::', 0), family=socket.AF_INET6)\n"
        "print(one.getsockname()[1], other.getsockname()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), "process", "dedup"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None and ran.stdin is not None
        ports = [int(text) for text in ran.stdout.readline().split()]
        found = [one for one in listeners() if one.pid == ran.pid]
        ran.stdin.close()
    assert sorted(found) == sorted(
        [Listener(ran.pid, "process dedup", "127.0.0.1", ports[0]), Listener(ran.pid, "process dedup", "::", ports[1])]
    )
