"""Writing the records of one topic, partition by partition at once, as segments of a backup."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from schemas.records import Record
from triggers.backup.files import Made, Writer, line, writing
from triggers.backup.manifest import Segment

_TOPICS: Final = "topics"


class _Open:
    def __init__(self, directory: Path, name: str, first: int) -> None:
        self.name = name
        self.first = first
        self.records = 0
        self._stack = ExitStack()
        self._file: Writer
        self._made: Made
        self._file, self._made = self._stack.enter_context(writing(directory, name))

    def put(self, record: Record) -> int:
        """Bytes of the file so far."""
        self._file.put(line(record))
        self.records += 1
        return self._file.taken

    def end(self) -> Made:
        self._stack.close()
        return self._made


class Out:
    """One topic. Offsets begin at 0 and have no holes."""

    def __init__(self, directory: Path, topic: str, segment_bytes_max: int) -> None:
        self._directory = directory
        self._topic = topic
        self._segment_bytes_max = segment_bytes_max
        self._open: dict[int, _Open] = {}
        self.segments: list[Segment] = []
        #: Where each partition ends.
        self.ends: dict[int, int] = {}

    def put(self, partition: int, record: Record) -> None:
        """At the end of a partition, whatever offset the record had."""
        offset = self.ends.get(partition, 0)
        part = self._open.get(partition)
        if part is None:
            name = f"{_TOPICS}/{self._topic}/{partition}/{offset:020}-r1.jsonl.gz"
            part = self._open[partition] = _Open(self._directory, name, offset)
        self.ends[partition] = offset + 1
        if part.put(record._replace(offset=offset)) >= self._segment_bytes_max:
            self._end(partition)

    def close(self) -> list[Segment]:
        """Whole segments, all of them."""
        for partition in [*self._open]:
            self._end(partition)
        return self.segments

    def _end(self, partition: int) -> None:
        part = self._open.pop(partition)
        made = part.end()
        self.segments.append(
            Segment(
                name=part.name, size=made.size, digest=made.digest, topic=self._topic, topic_id="", partition=partition,
                first=part.first, next=self.ends[partition], records=part.records,
            )
        )  # fmt: skip
