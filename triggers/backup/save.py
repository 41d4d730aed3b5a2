"""Making a backup while the system runs, and going on with one that is there.

Records below a cut never change, so what an earlier run into the same folder has read is not read again, whether that run came to its end
or was killed: `unfinished.jsonl` names the segments it had made whole. Compacted topics are read anew each time, since what they hold
changes. The manifest is replaced at the end, at once; files that are in none any more are then removed.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from access.secrets import Keyring, KeyringError
from projections.log_reader import LogReader, Place, Range
from projections.rebuild import Progress
from runtime.clock import Clock
from runtime.crashpoints import reach
from runtime.settings import KafkaSettings, Settings
from schemas.records import Record
from schemas.topics import Topic
from triggers.backup import control, cut, manifest
from triggers.backup.compacted import read_compacted
from triggers.backup.files import PART, line, sync_folder, write_whole, writing
from triggers.backup.manifest import MANIFEST, Covered, Damaged, Manifest, Segment, TopicAbout

UNFINISHED: Final = "unfinished.jsonl"
_LOCK: Final = ".lock"
_TOPICS: Final = "topics"
#: Bytes of lines after which a segment ends: what a run that was killed reads again of each partition, at most.
SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
_BATCH_RECORDS_MAX: Final = 5_000
_STALL_TIMEOUT_S: Final = 60.0


class NotSame(ValueError):
    """What is in the folder is not of this system."""


class Done:
    """What a run did. `read`: records of this run."""

    def __init__(self, digest: str, made: Manifest, read: int) -> None:
        self.digest = digest
        self.manifest = made
        self.read = read


def save(
    settings: Settings, directory: Path, clock: Clock, report: Callable[[Progress], None], *, segment_bytes_max: int = SEGMENT_BYTES_MAX
) -> Done:
    """Raises `NotSame`, `Damaged` for a folder that cannot be gone on with, `cut.CutError`, `projections.log_reader.LogError`, `OSError`,
    `confluent_kafka.KafkaException`, `psycopg.Error`. A manifest that is there stays until the new one takes its place."""
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        return _Save(settings, directory, clock, report, segment_bytes_max).run()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotSame(f"another backup into {directory} is running: wait for it") from None
        yield


class _Save:
    def __init__(
        self, settings: Settings, directory: Path, clock: Clock, report: Callable[[Progress], None], segment_bytes_max: int
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._report = report
        self._segment_bytes_max = segment_bytes_max
        self._segments: list[Segment] = []
        self._read = 0

    def run(self) -> Done:
        old = self._old()
        number = old.run + 1 if old else 1
        taken = cut.take(self._settings)
        here = (taken.cluster, self._settings.kafka.partitions, taken.generation)
        if old is not None and (old.cluster, old.partitions, old.generation) != here:
            raise NotSame(f"{self._directory} is a backup of another Kafka cluster: take another folder")
        known = [*(old.segments if old else ()), *self._unfinished()]
        self._keep(taken, known)
        self._read_log(taken, number)
        reach("backup.before_control")
        held = control.save(self._settings.postgres, self._directory, number)
        made = Manifest(
            format=manifest.FORMAT,
            run=number,
            made_at_ms=self._clock.now_ms(),
            version=importlib.metadata.version("triggers-on-kafka"),
            cluster=taken.cluster,
            generation=taken.generation,
            partitions=self._settings.kafka.partitions,
            delays_s=list(self._settings.delivery.delays_s),
            revision=held.revision,
            master_keys=held.master_keys,
            oldest_key=fingerprint(self._settings),
            topics=self._about(taken),
            covered=self._covered(taken),
            segments=self._segments,
            committed=taken.committed,
            tables=held.tables,
        )
        digest, content = manifest.encode(made)
        reach("backup.before_manifest")
        write_whole(self._directory / MANIFEST, content)
        reach("backup.after_manifest")
        self._tidy(made)
        return Done(digest, made, self._read)

    # -- what is there

    def _old(self) -> Manifest | None:
        path = self._directory / MANIFEST
        if not path.exists():
            ours = (_LOCK, UNFINISHED, _TOPICS, "control", MANIFEST + PART)
            others = [one.name for one in self._directory.iterdir() if one.name not in ours]
            if others:
                raise NotSame(f"{self._directory} holds {', '.join(sorted(others)[:3])}: take an empty folder")
            return None
        _, old = manifest.decode(path.read_bytes())
        return old

    def _unfinished(self) -> list[Segment]:
        """Segments that a run which did not come to its end had made whole. A last line that is torn says nothing."""
        path = self._directory / UNFINISHED
        if not path.exists():
            return []
        found = []
        for raw in path.read_bytes().splitlines():
            try:
                found.append(msgspec.json.decode(raw, type=Segment))
            except msgspec.DecodeError:
                break
        return found

    def _keep(self, taken: cut.Cut, known: list[Segment]) -> None:
        """Of what was read before: what still belongs to the backup, without a gap up to where reading goes on."""
        growing = {topic.name for topic in taken.topics if topic.cleanup == "delete"}
        places: dict[Place, list[Segment]] = {}
        for segment in sorted(known, key=lambda one: (one.topic, one.partition, one.first)):
            place = (segment.topic, segment.partition)
            if segment.topic not in growing or place not in taken.ranges:
                continue
            if segment.topic_id != taken.topic_ids[segment.topic]:
                raise NotSame(f"topic {segment.topic} was made anew since the last backup into {self._directory}: take another folder")
            kept, path = places.setdefault(place, []), self._directory / segment.name
            if segment.next > taken.ranges[place].end:
                raise NotSame(f"{segment.name} goes past the end of {place[0]}[{place[1]}]: the log has lost records. Take another folder")
            if kept and kept[-1].next != segment.first:
                continue  # read twice, by a run that was killed after its manifest
            if not path.exists() or path.stat().st_size != segment.size:
                raise Damaged(f"{segment.name} is missing or was cut: take another folder")
            kept.append(segment)
        for place, kept in places.items():
            begin = taken.ranges[place].begin
            if kept[-1].next < begin:
                kept.clear()  # retention has passed over what is between
            self._segments += [one for one in kept if one.next > begin or one is kept[-1]]

    # -- the log

    def _read_log(self, taken: cut.Cut, number: int) -> None:
        """What may go away soon comes first: compacted topics, then those with a retention, in the order in which they are declared."""
        topics = sorted(taken.topics, key=lambda topic: (topic.cleanup == "delete", topic.retention_ms < 0))
        began_s = self._clock.monotonic_s()
        with (self._directory / UNFINISHED).open("ab") as noted:
            sync_folder(self._directory)
            for topic in topics:
                for partition in range(self._settings.kafka.partitions):
                    self._read_partition(topic, taken, partition, number, noted)
                if topic.cleanup != "delete":
                    self._in_time(topic, self._clock.monotonic_s() - began_s)

    @staticmethod
    def _in_time(topic: Topic, took_s: float) -> None:
        """Compaction may take a record below the cut for one above it, but not sooner than the topic's lag. Raises `cut.CutError`."""
        if took_s > int(topic.extra["min.compaction.lag.ms"]) / 1000:
            raise cut.CutError(f"{topic.name} took {took_s:.0f} s to read, longer than compaction waits: run it again with less load")

    def _read_partition(self, topic: Topic, taken: cut.Cut, partition: int, number: int, noted: BinaryIO) -> None:
        place = (topic.name, partition)
        begin, end = taken.ranges[place]
        have = [one for one in self._segments if (one.topic, one.partition) == place]
        if have:
            begin = have[-1].next
        if begin == end:
            return
        began_s, done = self._clock.monotonic_s(), 0
        with closing(self._records(topic, place, Range(begin, end))) as records:
            for segment in self._cut_up(topic, taken.topic_ids[topic.name], partition, Range(begin, end), records, number):
                self._segments.append(segment)
                noted.write(msgspec.json.encode(segment) + b"\n")
                noted.flush()
                os.fsync(noted.fileno())
                reach("backup.after_segment")
                done += segment.next - segment.first
                self._read += segment.records
                self._report(Progress(f"{topic.name}[{partition}]", done, end - begin, self._clock.monotonic_s() - began_s))

    def _records(self, topic: Topic, place: Place, part: Range) -> Generator[Record, None, None]:
        kafka = self._settings.kafka
        return read_compacted(kafka, place, part, _STALL_TIMEOUT_S) if topic.cleanup != "delete" else _read_whole(kafka, place, part)

    def _cut_up(
        self, topic: Topic, topic_id: str, partition: int, part: Range, records: Iterator[Record], number: int
    ) -> Iterator[Segment]:
        """Segments of a range; together they cover it, whatever offsets are missing in it."""
        first, record = part.begin, next(records, None)
        while first < part.end:
            count, name = 0, f"{_TOPICS}/{topic.name}/{partition}/{first:020}-r{number}.jsonl.gz"
            with writing(self._directory, name) as (file, made):
                while record is not None:
                    file.put(line(record))
                    count, last = count + 1, record.offset
                    record = next(records, None)
                    if file.taken >= self._segment_bytes_max:
                        break
            following = part.end if record is None else last + 1
            yield Segment(
                name=name, size=made.size, digest=made.digest, topic=topic.name, topic_id=topic_id, partition=partition,
                first=first, next=following, records=count,
            )  # fmt: skip
            first = following

    # -- the manifest

    def _about(self, taken: cut.Cut) -> list[TopicAbout]:
        return [
            TopicAbout(
                name=topic.name, topic_id=taken.topic_ids[topic.name], compacted=topic.cleanup != "delete", timestamp=topic.timestamp,
                config=topic.config(min_insync_replicas=self._settings.kafka.min_insync_replicas),
            )
            for topic in taken.topics
        ]  # fmt: skip

    def _covered(self, taken: cut.Cut) -> list[Covered]:
        firsts: dict[Place, int] = {}
        for segment in self._segments:
            place = (segment.topic, segment.partition)
            firsts[place] = min(firsts.get(place, segment.first), segment.first)
        return [
            Covered(topic=place[0], partition=place[1], begin=firsts.get(place, part.begin), end=part.end)
            for place, part in taken.ranges.items()
        ]

    def _tidy(self, made: Manifest) -> None:
        """What earlier runs left and no manifest names."""
        (self._directory / UNFINISHED).unlink(missing_ok=True)
        named = {file.name for file in made.files()}
        for folder in (_TOPICS, "control"):
            for path in (self._directory / folder).rglob("*"):
                if path.is_file() and str(path.relative_to(self._directory)) not in named:
                    path.unlink()


def _read_whole(kafka: KafkaSettings, place: Place, part: Range) -> Generator[Record, None, None]:
    """Every record of a range; a hole in it is an error."""
    with closing(LogReader(kafka, batch_records_max=_BATCH_RECORDS_MAX, stall_timeout_s=_STALL_TIMEOUT_S, headers=True)) as reader:
        for batch in reader.read({place: part}):
            for chunk in batch:
                yield from chunk.records


def fingerprint(settings: Settings) -> str | None:
    """Of the oldest master key, or None without one. It tells nothing about the key: SHA-256 over what HKDF derives from it."""
    try:
        keyring = Keyring.from_setting(settings.master_keys.get_secret_value())
    except KeyringError:
        return None
    return sha256(keyring.derive(b"backup fingerprint")).hexdigest()[:16]
