"""An audit export of a real log: every byte, gone on with, stopped anywhere, and checked without any server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer

from runtime.clock import SYSTEM
from runtime.postgres import connect
from runtime.settings import Settings
from schemas.ids import OrganizationId, organization_id
from schemas.keys import partition_of, record_key
from schemas.topics import EVENTS_ACCEPTED
from tests import runbooks
from triggers.audit import check
from triggers.audit.check import Broken
from triggers.audit.export import NotSame, export
from triggers.audit.lines import Entry, decode
from triggers.system import argv

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "audit.md"
_numbers = count(7_000)


def neighbours(settings: Settings) -> list[OrganizationId]:
    """Two new organizations in one partition."""
    first = organization_id(next(_numbers), os.urandom(10))
    place = partition_of(record_key(first), settings.kafka.partitions)
    others = (organization_id(next(_numbers), os.urandom(10)) for _ in range(10_000))
    return [first, next(one for one in others if partition_of(record_key(one), settings.kafka.partitions) == place)]


def produce(settings: Settings, organizations: Sequence[OrganizationId], events: int) -> list[tuple[bytes, bytes]]:
    """Records by turns; what the first organization has of them."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "partitioner": "murmur2", "enable.idempotence": True})
    mine: list[tuple[bytes, bytes]] = []
    for number in range(events):
        organization = organizations[number % len(organizations)]
        header, value = os.urandom(4), b'{"n":%d,"of":"%b"}' % (number, organization.encode())
        producer.produce(EVENTS_ACCEPTED, value, record_key(organization), headers=[("event-id", header)])
        if organization == organizations[0]:
            mine.append((header, value))
    assert producer.flush(60) == 0
    return mine


def run(settings: Settings, organization: OrganizationId, file: Path) -> check.State:
    return export(settings.kafka, organization, file, SYSTEM, lambda _: None, records_per_checkpoint=7)


def contents(file: Path) -> list[tuple[bytes | None, bytes | None]]:
    entries = [line for line in map(decode, file.read_bytes().splitlines(keepends=True)) if isinstance(line, Entry)]
    return [(one.headers_as_found()[0][1], one.content()) for one in entries]


def command(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv("audit", *map(str, arguments)),
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_an_export_has_each_byte_of_the_organizations_records_and_of_nobody_elses(settings: Settings, tmp_path: Path) -> None:
    organizations, file = neighbours(settings), tmp_path / "events.jsonl"
    mine = produce(settings, organizations, 60)
    state = run(settings, organizations[0], file)
    assert contents(file) == mine
    with file.open("rb") as lines:
        assert check.check(lines) == state


def test_gone_on_with_it_is_what_one_export_of_all_would_have_been(settings: Settings, tmp_path: Path) -> None:
    organizations, grown, whole = neighbours(settings), tmp_path / "grown", tmp_path / "whole"
    mine = produce(settings, organizations, 30)
    run(settings, organizations[0], grown)
    mine += produce(settings, organizations, 30)
    last = run(settings, organizations[0], grown)
    assert contents(grown) == mine
    assert last.link == run(settings, organizations[0], whole).link
    before = grown.read_bytes()
    run(settings, organizations[0], grown)
    assert grown.read_bytes() == before, "nothing came, and nothing was written"


def test_stopped_at_any_byte_the_same_command_completes_it(settings: Settings, tmp_path: Path) -> None:
    organizations, file = neighbours(settings), tmp_path / "events.jsonl"
    produce(settings, organizations, 24)
    run(settings, organizations[0], file)
    whole = file.read_bytes()
    for size in (0, *range(len(whole.splitlines(keepends=True)[0]), len(whole), 531), len(whole) - 1):
        file.write_bytes(whole[:size])
        run(settings, organizations[0], file)
        assert file.read_bytes() == whole, f"cut at byte {size}"


def test_a_damaged_file_or_one_of_another_log_is_left_as_it_is(settings: Settings, tmp_path: Path) -> None:
    organizations, file = neighbours(settings), tmp_path / "events.jsonl"
    produce(settings, organizations, 20)
    run(settings, organizations[0], file)
    whole = file.read_bytes()
    with pytest.raises(NotSame, match=f"is about {organizations[0]}"):
        run(settings, organizations[1], file)
    file.write_bytes(spoiled := whole.replace(b'n\\":2,', b'n\\":3,'))
    assert spoiled != whole
    with pytest.raises(Broken, match=r"damaged .*line 3: .* is not what was exported"):
        run(settings, organizations[0], file)
    assert file.read_bytes() == spoiled
    last = whole.splitlines(keepends=True)[-1]
    file.write_bytes(whole.replace(last, re.sub(rb'"next_offset":\d+', b'"next_offset":99999999', last)))
    with pytest.raises(NotSame, match="it is of another log"):
        run(settings, organizations[0], file)


def test_the_page_and_the_commands_say_the_same_and_the_audit_log_can_be_held_against_a_file(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    organizations, file = neighbours(settings), tmp_path / "orders.jsonl"
    produce(settings, organizations, 10)
    page = PAGE.read_text()
    commands = [found[1].split() for step in runbooks.steps_of(PAGE.name) if (found := re.match(r"triggers audit (.*)", step.command))]
    assert len(commands) == 3
    chain = ""
    for written in commands:
        here = {"$ORG": organizations[0], "orders.jsonl": str(file), "$CHAIN": chain}
        asked = [here.get(word, word) for word in written]
        # Checking needs nothing of ours around it.
        ran = command(*asked, "--json", environment=environment if asked[0] == "export" else None)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        chain = told["chain"]
        assert told["records"] == 5
    with connect(settings.postgres, application="test") as connection:
        noted = connection.execute(
            "SELECT detail FROM audit_log WHERE action = 'audit.exported' AND organization = %s ORDER BY id DESC LIMIT 1",
            [organizations[0]],
        ).fetchone()
    assert noted is not None
    assert noted[0]["chain"] == chain
    snippet = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert snippet is not None
    own = subprocess.run([sys.executable, "-c", snippet[1], str(file)], capture_output=True, text=True, check=True, timeout=60)
    assert own.stdout.strip() == chain

    shorter = file.read_bytes().splitlines(keepends=True)[:-1]
    file.write_bytes(b"".join(shorter))
    cut = command("verify", file)
    assert (cut.returncode, "completes it" in cut.stderr) == (1, True)
    assert command("export", organizations[0], file, environment=environment).returncode == 0
    other = command("verify", file, "--chain", "0" * 64)
    assert (other.returncode, "not the one that was noted" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["export", "acme", "x"], "'acme' is no id of an organization"),
        (["verify", "/nowhere"], "/nowhere could not be read"),
        (["verify", "/dev/null"], "the file is empty"),
        (["export", organization_id(1, bytes(10)), "/nowhere/x"], "/nowhere/x could not be written"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(arguments: list[str], why: str, environment: dict[str, str]) -> None:
    ran = command(*arguments, environment=environment)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert why in ran.stderr
    assert "Traceback" not in ran.stderr
