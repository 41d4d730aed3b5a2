"""A backup of a real log and its restore into empty servers: every byte, offset, time and place; damage; being stopped."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from access.secrets import KeyringError
from runtime.clock import SYSTEM
from runtime.lifecycle import Unavailable
from runtime.postgres import connect
from runtime.settings import Settings
from runtime.topics import admin
from schemas.topics import (
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
    EVENTS_INGESTED,
    RESTORING,
    declared,
    retry_topic,
)
from tests import runbooks
from tests.contract.backup.rig import GONE, control_of, log_of, quiet, stands
from tests.contract.rebuild.rig import sums
from triggers.backup.check import check
from triggers.backup.manifest import MANIFEST, Damaged
from triggers.backup.produce import RestoreError
from triggers.backup.restore import restore
from triggers.backup.save import UNFINISHED, Done, save
from triggers.backup.target import NotEmpty
from triggers.processes import wait_for_kafka
from triggers.system import argv

Saved = tuple[Path, Done]


def environment_of(settings: Settings) -> dict[str, str]:
    """What the commands need of it."""
    return {
        "TRIGGERS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "TRIGGERS_POSTGRES__DSN": settings.postgres.dsn.get_secret_value(),
        "TRIGGERS_REDIS__URL": settings.redis.url.get_secret_value(),
        "TRIGGERS_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "TRIGGERS_DELIVERY__DELAYS_S": json.dumps(settings.delivery.delays_s),
        "TRIGGERS_KAFKA__PARTITIONS": str(settings.kafka.partitions),
    }


def command(settings: Settings, *arguments: str | Path, crash: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As an operator gives it."""
    armed = {"TRIGGERS_CRASH_FILE": str(crash)} if crash else {}
    environment = {**environment_of(settings), **armed, "PATH": os.environ["PATH"]}
    return subprocess.run(argv(*map(str, arguments)), env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_restored_system_has_every_record_offset_time_place_and_row(source: Settings, saved: Saved, target: Settings) -> None:
    directory, done = saved
    result = restore(target, directory, SYSTEM, quiet)
    assert result.digest == done.digest and not result.resumed and not result.warnings
    before, after = log_of(source), log_of(target)
    first = retry_topic(source.delivery.delays_s[0])
    assert sum(map(len, before.values())) > 5_000
    for (topic, partition), records in before.items():
        assert records[0].offset == (GONE if topic in (DELIVERIES_DEAD, first) else 0) if records else True
        numbers = range(len(records)) if topic == DELIVERIES_FIFO else [one.offset for one in records]
        wanted = [one._replace(offset=number, clock=1) for one, number in zip(records, numbers, strict=True)]
        assert [one._replace(clock=1) for one in after[topic, partition]] == wanted, (topic, partition)
    assert sums(target) == sums(source)
    assert control_of(target) == control_of(source)
    assert stands(target) == stands(source)
    config = {topic.name: topic.timestamp for topic in declared(target.delivery.delays_s)}
    assert config[EVENTS_INGESTED] == "LogAppendTime"
    assert configured(target, "message.timestamp.type") == config
    assert result.kept_longer == [first]  # else the broker would take retries that are still to be made
    assert configured(target, "retention.ms")[first] == "-1"
    with connect(target.postgres, application="test") as connection:  # numbering goes on
        row = connection.execute("INSERT INTO audit_log (actor, action, target) VALUES ('t', 't', 't') RETURNING id").fetchone()
        assert row is not None and row[0] == (connection.execute("SELECT max(id) FROM audit_log").fetchone() or (0,))[0]
    with pytest.raises(NotEmpty, match="has had"):
        restore(target, directory, SYSTEM, quiet)


def configured(settings: Settings, name: str) -> dict[str, str]:
    from confluent_kafka.admin._config import ConfigResource  # noqa: PLC0415
    from confluent_kafka.admin._resource import ResourceType  # noqa: PLC0415

    asked = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in declared(settings.delivery.delays_s)]
    client = admin(settings.kafka)  # one that is gone never answers
    answers = client.describe_configs(asked)
    return {resource.name: answer.result(10)[name].value for resource, answer in answers.items()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + gzip.compress(b'[1,1,"k","v",[]]\n'))


def drop_segment(path: Path) -> None:
    """A manifest that somebody took a segment out of."""
    document = json.loads(path.read_bytes())
    document["manifest"]["segments"].pop()
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("harm", [flip, cut, grow, Path.unlink], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("where", ["topics/events.accepted", "topics/deliveries.fifo", "control"])
def test_a_damaged_backup_is_known_without_any_server(saved: Saved, tmp_path: Path, where: str, harm: Callable[[Path], None]) -> None:
    directory = shutil.copytree(saved[0], tmp_path / "backup")
    victim = sorted(path for path in (directory / where).rglob("*") if path.is_file())[-1]
    harm(victim)
    with pytest.raises(Damaged, match=str(victim.relative_to(directory))):
        check(directory, quiet)


@pytest.mark.parametrize("harm", [flip, cut, drop_segment, Path.unlink], ids=lambda harm: harm.__name__)
def test_a_damaged_manifest_is_known(saved: Saved, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    directory = shutil.copytree(saved[0], tmp_path / "backup")
    harm(directory / MANIFEST)
    with pytest.raises(Damaged, match=MANIFEST):
        check(directory, quiet)


def test_nothing_is_written_from_a_damaged_backup_or_under_other_settings(saved: Saved, target: Settings, tmp_path: Path) -> None:
    directory = shutil.copytree(saved[0], tmp_path / "backup")
    delays = target.delivery.model_copy(update={"delays_s": (1.0, 2.0)})
    with pytest.raises(RestoreError, match="TRIGGERS_DELIVERY__DELAYS_S"):
        restore(target.model_copy(update={"delivery": delays}), directory, SYSTEM, quiet)
    with pytest.raises(KeyringError, match="master keys that are not in"):
        restore(target.model_copy(update={"master_keys": SecretStr("x:" + "A" * 43 + "=")}), directory, SYSTEM, quiet)
    flip(sorted((directory / "topics").rglob("*.gz"))[0])
    with pytest.raises(Damaged, match="was changed after it was written"):
        restore(target, directory, SYSTEM, quiet)
    assert not [name for name in admin(target.kafka).list_topics(timeout=10).topics if not name.startswith("__")]


@pytest.mark.verify
def test_a_backup_that_was_killed_has_no_manifest_and_goes_on_and_a_second_one_reads_what_is_new(source: Settings, tmp_path: Path) -> None:
    directory, crash = tmp_path / "backup", tmp_path / "crash"
    crash.write_text("backup.after_segment:9")
    assert command(source, "backup", directory, crash=crash).returncode == -9
    assert not (directory / MANIFEST).exists()
    assert command(source, "backup", directory, "--verify").returncode == 1
    first = command(source, "backup", directory, "--json")
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert 0 < document["records_new"] < sum(document["records"].values())
    again = save(source, directory, SYSTEM, quiet)
    compacted = sum(document["records"][topic.name] for topic in declared(source.delivery.delays_s) if topic.cleanup != "delete")
    assert (again.manifest.run, again.read) == (2, compacted)
    checked = json.loads(command(source, "backup", directory, "--verify", "--json").stdout)
    assert (checked["records"], checked["backup"]) == (document["records"], again.digest)


@pytest.mark.verify
def test_a_backup_that_was_killed_in_its_last_steps_is_whole_or_not_there_and_the_next_one_tidies_up(
    source: Settings, saved: Saved, tmp_path: Path
) -> None:
    directory, crash = tmp_path / "backup", tmp_path / "crash"
    for place, there in (("backup.before_control", False), ("backup.before_manifest", False), ("backup.after_manifest", True)):
        crash.write_text(place)
        killed = command(source, "backup", directory, crash=crash)
        assert killed.returncode == -9, (place, killed.stderr)
        assert (directory / MANIFEST).exists() == there, place
        assert command(source, "backup", directory, "--verify").returncode == (0 if there else 1), place
    assert (directory / UNFINISHED).exists()  # what the last steps would have tidied away
    assert check(directory, quiet).manifest.run == 1
    again = save(source, directory, SYSTEM, quiet)
    assert again.manifest.run == 2
    compacted = {topic.name for topic in declared(source.delivery.delays_s) if topic.cleanup != "delete"}
    assert again.read == sum(one.records for one in again.manifest.segments if one.topic in compacted)  # all else was read before
    assert check(directory, quiet).digest == again.digest
    assert counted(again) == counted(saved[1])
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert files == {MANIFEST, ".lock", *(file.name for file in again.manifest.files())}


def counted(done: Done) -> dict[tuple[str, int], int]:
    """Records of each partition."""
    found: dict[tuple[str, int], int] = {}
    for one in done.manifest.segments:
        found[one.topic, one.partition] = found.get((one.topic, one.partition), 0) + one.records
    return found


@pytest.mark.verify
def test_a_restore_that_was_killed_holds_every_process_back_and_goes_on(
    source: Settings, saved: Saved, target: Settings, tmp_path: Path
) -> None:
    directory, crash = saved[0], tmp_path / "crash"
    for place in ("restore.marked", "restore.after_partition:5", "restore.after_control", "restore.after_folds", "restore.before_end"):
        crash.write_text(place)
        killed = command(target, "restore", directory, crash=crash)
        assert killed.returncode == -9, killed.stderr
        with pytest.raises(Unavailable, match="a restore is not done"):
            wait_for_kafka(target.model_copy(update={"startup_timeout_s": 0.2}))
    done = command(target, "restore", directory, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"]
    assert not [name for name in admin(target.kafka).list_topics(timeout=10).topics if name.startswith(RESTORING)]
    assert sums(target) == sums(source)
    assert control_of(target) == control_of(source)
    lengths = [{place: len(records) for place, records in log_of(settings).items()} for settings in (source, target)]
    assert lengths[0] == lengths[1]


@pytest.mark.verify
@pytest.mark.parametrize("page", runbooks.RESTORED)
def test_every_command_of_the_runbook_prints_what_it_says(page: str, source: Settings, target: Settings, tmp_path: Path) -> None:
    backup = {"BACKUP": str(tmp_path / "backup")}
    restored = False

    def servers_of(step: runbooks.Step) -> dict[str, str]:
        nonlocal restored
        restored |= "triggers restore" in step.command
        return environment_of(target if restored else source)

    runbooks.run_page(page, backup, tmp_path, of_step=servers_of)
    assert sums(target) == sums(source)
    again = command(target, "restore", backup["BACKUP"])
    assert (again.returncode, len(again.stderr.splitlines()[-1:])) == (1, 1)
    assert "has had" in again.stderr
