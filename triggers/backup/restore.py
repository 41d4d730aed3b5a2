"""Restoring a backup into an empty system, so that it ends equal: offsets, times, groups, the control plane, and the folds.

The order: check every file, see that the servers are empty, mark them as being restored, then topics, records, groups, control plane,
folds; at the end topics get the time setting that is declared, and the marks go. Stopped anywhere, the same command goes on.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from access import audit
from access.secrets import Keyring
from projections.log_reader import Place
from projections.rebuild import Progress
from projections.refill import refill
from runtime import migrations, topics
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.kafka import LIBRDKAFKA_LOGGER, client_config
from runtime.settings import Settings
from schemas.topics import FOREVER, Topic, declared
from triggers.backup import control
from triggers.backup.check import Checked, check
from triggers.backup.manifest import Manifest
from triggers.backup.produce import Putter, RestoreError, records_of
from triggers.backup.save import fingerprint
from triggers.backup.target import Target
from triggers.erasure import reapply

_TIMESTAMP_TYPE: Final = "message.timestamp.type"
_DAY_MS: Final = 86_400_000


@dataclass
class Restored:
    """What was done. `kept_longer`: topics whose retention would have taken what is still to be worked on, and is lifted."""

    digest: str
    manifest: Manifest
    resumed: bool
    records: int = 0
    rows: int = 0
    kept_longer: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def restore(settings: Settings, directory: Path, clock: Clock, report: Callable[[Progress], None], *, same_log: bool = False) -> Restored:
    """`same_log`: into servers that held the same events a moment ago, whose Redis goes on.

    Raises `Damaged`, `NotEmpty`, `RestoreError`, `OSError`, `access.secrets.KeyringError`, `runtime.migrations.MigrationError`,
    `confluent_kafka.KafkaException`, `psycopg.Error`; before anything is written where the backup or the settings are at fault."""
    checked = check(directory, report)
    warnings = fits(settings, checked.manifest)
    target = Target(settings, checked.digest)
    done = Restored(checked.digest, checked.manifest, target.begin(checked.manifest, same_log=same_log), warnings=warnings)
    reach("restore.marked")
    run = _Restore(settings, directory, clock, report, checked, target, done)
    run.log()
    run.groups()
    if not target.database_done:
        run.database()
    reach("restore.before_end")
    run.settle()
    target.end()
    return done


def fits(settings: Settings, manifest: Manifest) -> list[str]:
    """Raises `RestoreError` for settings that the backup cannot be restored with, `KeyringError` for a missing master key."""
    here = (settings.kafka.partitions, sorted(settings.delivery.delays_s))
    if (manifest.partitions, sorted(manifest.delays_s)) != here:
        raise RestoreError(
            f"the backup has {manifest.partitions} partitions and delays of {', '.join(f'{delay:g}' for delay in manifest.delays_s)} s: "
            "set TRIGGERS_KAFKA__PARTITIONS and TRIGGERS_DELIVERY__DELAYS_S to that"
        )
    if unknown := {topic.name for topic in manifest.topics} - {topic.name for topic in declared(settings.delivery.delays_s)}:
        raise RestoreError(f"the backup has topics that are not known here ({', '.join(sorted(unknown))}): use version {manifest.version}")
    if not migrations.is_known(manifest.revision):
        raise RestoreError(f"the tables of the backup are at {manifest.revision}, which is not known here: use version {manifest.version}")
    if manifest.master_keys:
        Keyring.from_setting(settings.master_keys.get_secret_value()).require(manifest.master_keys)
    if manifest.oldest_key != fingerprint(settings):
        return ["the oldest master key is not the one of the backup: cursors that readers hold will not be taken"]
    return []


class _Restore:
    def __init__(
        self,
        settings: Settings,
        directory: Path,
        clock: Clock,
        report: Callable[[Progress], None],
        checked: Checked,
        target: Target,
        done: Restored,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._report = report
        self._checked = checked
        self._manifest = checked.manifest
        self._target = target
        self._done = done
        self._topics = declared(settings.delivery.delays_s)
        self._client = topics.admin(settings.kafka)

    # -- the log

    def log(self) -> None:
        for topic in self._topics:
            self._prepare(topic)
        total, done, began_s = sum(one.records for one in self._manifest.segments), 0, self._clock.monotonic_s()
        putter = Putter(self._settings.kafka)
        places = [(topic.name, number) for topic in self._topics for number in range(self._settings.kafka.partitions)]
        have = topics.ends_of_new(self._client, places)
        fillers = defaultdict(int, self._fillers())
        for place in places:
            count = fillers[place] + sum(one.records for one in self._manifest.segments_of(place))
            if have[place] > count:
                raise RestoreError(
                    f"{place[0]}[{place[1]}] has {have[place]} records, the backup {count}: empty the servers and begin again"
                )
            self._done.records += putter.put(place, records_of(self._directory, self._manifest, place, fillers[place]), have[place])
            reach("restore.after_partition")
            done += count - fillers[place]
            self._report(Progress("restore", done, total, self._clock.monotonic_s() - began_s))

    def _fillers(self) -> dict[Place, int]:
        """Of each partition, how many records retention had taken. A compacted one is not filled up."""
        compacted = {topic.name for topic in self._manifest.topics if topic.compacted}
        return {place: 0 if place[0] in compacted else part.begin for place, part in self._manifest.ranges().items()}

    def _prepare(self, topic: Topic) -> None:
        """There, with the producer's times: where a topic has its own clock, the old times count: they are dedup's."""
        config = {**topic.config(min_insync_replicas=self._settings.kafka.min_insync_replicas), _TIMESTAMP_TYPE: "CreateTime"}
        if self._kept_longer(topic):
            config["retention.ms"] = str(FOREVER)
            self._done.kept_longer.append(topic.name)
        kafka = self._settings.kafka
        made = topics.create(
            self._client, topic.name, partitions=kafka.partitions, replication_factor=kafka.replication_factor, config=config
        )
        if not made:
            topics.configure(self._client, topic.name, {name: config[name] for name in (_TIMESTAMP_TYPE, "retention.ms")})

    def _kept_longer(self, topic: Topic) -> bool:
        """Whether retention is near what a group has not done with."""
        since_ms = self._checked.pending_since_ms.get(topic.name)
        return since_ms is not None and 0 < topic.retention_ms < self._clock.now_ms() - since_ms + _DAY_MS

    def settle(self) -> None:
        """Topics as they are declared, without what stood in for lost records, and first offsets for those the backup does not have."""
        topics.delete_before(self._client, {place: count for place, count in self._fillers().items() if count})
        for topic in self._topics:
            if topic.timestamp != "CreateTime":
                topics.configure(self._client, topic.name, {_TIMESTAMP_TYPE: topic.timestamp})
        topics.ensure(self._settings.kafka, self._settings.delivery.delays_s, by_restore=True)

    # -- the groups

    def groups(self) -> None:
        for group in sorted({one.group for one in self._manifest.committed}):
            consumer = Consumer(
                {**client_config(self._settings.kafka, "restore"), "group.id": group, "enable.auto.commit": False}, logger=LIBRDKAFKA_LOGGER
            )
            try:
                mine = [one for one in self._manifest.committed if one.group == group]
                offsets = [TopicPartition(one.topic, one.partition, one.offset, metadata=one.metadata) for one in mine]
                consumer.commit(offsets=offsets, asynchronous=False)
            finally:
                consumer.close()

    # -- the database

    def database(self) -> None:
        """The control plane at the revision it had, then the newest tables, then the folds, each step whole or begun again."""
        postgres, manifest = self._settings.postgres, self._manifest
        if migrations.current(postgres) not in (None, manifest.revision):
            control.drop(postgres)  # seen to be empty, or filled by this restore
        migrations.migrate(postgres, revision=manifest.revision)
        with control.session(postgres) as connection:
            control.fill(connection, self._directory, manifest)
        self._done.rows = sum(table.rows for table in manifest.tables)
        reach("restore.after_control")
        migrations.migrate(postgres)
        counts = {place: sum(one.records for one in manifest.segments_of(place)) for place in manifest.ranges()}
        actor = audit.command_line_actor()
        asyncio.run(refill(self._settings, counts, self._clock, self._report, actor=actor))
        reach("restore.after_folds")
        # What was erased between the backup's control plane and the end of its log stays erased.
        reapply(self._settings, _quietly, restoring=True)
        with control.session(postgres) as connection:
            audit.record(
                connection, actor=actor, action="backup.restored", organization=None, target=self._done.digest,
                detail={"mark": self._target.mark, "run": manifest.run, "made_at_ms": manifest.made_at_ms, "version": manifest.version},
            )  # fmt: skip
            self._target.unmark_database(connection)


def _quietly(_topic: str, _read: int, _total: int) -> None:
    """A few records: not worth a line."""
