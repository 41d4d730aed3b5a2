"""Reading an audit export again, link by link. Needs the file and nothing else; memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from schemas.ids import OrganizationId
from schemas.keys import record_key
from triggers.audit.chain import FORMAT, first_link, next_link
from triggers.audit.lines import Checkpoint, Entry, Export, Line, decode


class Broken(ValueError):
    """The file is not what was exported. The text names the line and what is wrong with it."""


@dataclass(slots=True)
class State:
    """Where the chain stands after the lines so far. `size`: bytes up to the end of the last checkpoint, 0 without one.

    `open_records`: records after the last checkpoint. `first_ms`, `last_ms`: times of the first and the last record.
    """

    about: Export
    link: bytes
    next_offset: int
    records: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    checkpoints: int = 0
    open_records: int = 0
    size: int = 0
    noted: bool = False

    def took(self, line: Entry, link: bytes) -> None:
        """A record that follows."""
        self.link, self.next_offset = link, line.offset + 1
        self.records += 1
        self.open_records += 1
        self.first_ms = line.timestamp_ms if self.first_ms is None else self.first_ms
        self.last_ms = line.timestamp_ms

    def checkpoint(self, next_offset: int) -> None:
        """Everything so far is whole."""
        self.next_offset = next_offset
        self.checkpoints += 1
        self.open_records = 0


def begin(about: Export) -> State:
    """Before the first record. Raises `Broken` for a format that is not known here."""
    if about.format != FORMAT:
        raise Broken(f"format {about.format} is not known here (known: {FORMAT})")
    link = first_link(about.organization, about.topic, about.partition, about.generation)
    return State(about, link, about.first_offset)


def check(lines: Iterable[bytes], *, noted: str | None = None) -> State:
    """Follow the chain through a whole file, or through what is whole of it: lines after the last checkpoint may be cut short.

    `noted`: a link somebody wrote down when the file was made; `State.noted` tells whether a checkpoint has it.
    Raises `Broken` at the first line that does not follow.
    """
    state: State | None = None
    read = 0
    for number, raw in enumerate(lines, 1):
        read += len(raw)
        if not raw.endswith(b"\n"):
            break  # torn: whoever wrote it was stopped. It says nothing yet
        try:
            line = _line(raw)
            if state is None:
                state = _first(line)
            elif isinstance(line, Entry):
                _follow(state, line)
            elif isinstance(line, Checkpoint):
                _checkpoint(state, line)
                state.size = read
                state.noted = state.noted or line.chain == noted
            else:
                raise Broken("a second beginning")
        except Broken as error:
            raise Broken(f"line {number}: {error}") from None
    if state is None:
        raise Broken("the file is empty")
    return state


def _line(raw: bytes) -> Line:
    try:
        line: Line = decode(raw)
        return line
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Broken(f"it is no line of an export ({error})") from None


def _first(line: Line) -> State:
    if not isinstance(line, Export):
        raise Broken("the file does not begin with what it is about")
    return begin(line)


def _follow(state: State, line: Entry) -> None:
    if line.offset < state.next_offset:
        raise Broken(f"offset {line.offset} comes after the file had got to {state.next_offset}")
    try:
        content, headers = line.content(), line.headers_as_found()
    except (ValueError, KeyError) as error:
        raise Broken(f"offset {line.offset} cannot be read ({error})") from None
    link = next_link(state.link, line.offset, line.timestamp_ms, record_key(state.about.organization), headers, content)
    if link.hex() != line.chain:
        raise Broken(f"offset {line.offset} is not what was exported, or a record before it was taken out, put in or moved")
    state.took(line, link)


def _checkpoint(state: State, line: Checkpoint) -> None:
    if (line.chain, line.records) != (state.link.hex(), state.records):
        raise Broken(f"the checkpoint counts {line.records} records, and {state.records} that follow from each other are here")
    if line.next_offset < state.next_offset:
        raise Broken(f"the checkpoint is at offset {line.next_offset}, the records before it go up to {state.next_offset}")
    state.checkpoint(line.next_offset)


def about(organization: OrganizationId, topic: str, partition: int, generation: int, first_offset: int) -> Export:
    """The first line of a new file."""
    return Export(
        format=FORMAT, organization=organization, topic=topic, partition=partition, generation=generation, first_offset=first_offset
    )
