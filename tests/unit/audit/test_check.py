"""Whatever is done to an audit export is found out, and what was stopped is not taken for damage."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import organization_id
from schemas.keys import record_key
from schemas.records import Record
from triggers.audit import check
from triggers.audit.chain import next_link
from triggers.audit.check import Broken
from triggers.audit.lines import Checkpoint, Entry, decode, encode, entry

OWNER = organization_id(1, bytes(10))
KEY = record_key(OWNER)
RECORDS = [
    Record(0, 1_000, KEY, b'{"n":0}', [("event-id", b"evt_0"), ("traceparent", None)]),
    Record(3, 1_001, KEY, b"", []),
    Record(4, 1_001, KEY, None, [("x", b"")]),
    Record(9, 1_005, KEY, b"\xff\x00\xfe", [("y", b"\xff")]),
    Record(12, 1_009, KEY, '{"é":"\u2028"}'.encode(), [("event-id", b"evt_1"), ("event-id", b"evt_2")]),
]


def written(records: list[Record] = RECORDS, *, every: int = 2, end: int = 20) -> list[bytes]:
    """The lines of a whole export."""
    about = check.about(OWNER, "events.accepted", 2, 1, 0)
    lines, state = [encode(about)], check.begin(about)
    for record in records:
        link = next_link(state.link, record.offset, record.timestamp_ms, record.key, record.headers, record.value)
        state.took(line := entry(record, link), link)
        lines.append(encode(line))
        if state.open_records == every:
            lines.append(encode(Checkpoint(next_offset=record.offset + 1, records=state.records, chain=link.hex())))
            state.checkpoint(record.offset + 1)
    lines.append(encode(Checkpoint(next_offset=end, records=state.records, chain=state.link.hex())))
    return lines


def test_a_whole_file_is_followed_to_its_end() -> None:
    lines = written()
    state = check.check(lines)
    assert (state.records, state.next_offset, state.open_records, state.size) == (5, 20, 0, len(b"".join(lines)))
    assert (state.first_ms, state.last_ms) == (1_000, 1_009)


def test_every_byte_of_a_record_comes_back_as_it_was() -> None:
    entries = [line for line in map(decode, written()) if isinstance(line, Entry)]
    assert [(one.offset, one.timestamp_ms, one.content(), one.headers_as_found()) for one in entries] == [
        (one.offset, one.timestamp_ms, one.value, list(one.headers)) for one in RECORDS
    ]


@given(
    records=st.lists(
        st.tuples(st.binary(max_size=20) | st.none(), st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5) | st.none())))
    )
)
def test_any_record_can_be_exported_and_followed(records: list[tuple[bytes | None, list[tuple[str, bytes | None]]]]) -> None:
    made = [Record(n, n, KEY, value, headers) for n, (value, headers) in enumerate(records)]
    state = check.check(written(made, end=len(made)))
    assert (state.records, state.next_offset) == (len(made), len(made))


def changed(line: bytes, **fields: object) -> bytes:
    return encode(msgspec.structs.replace(decode(line), **fields))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda a: [a[0], *a[2:]], "offset 3 is not what was exported"),
        (lambda a: [a[0], a[2], a[1], *a[3:]], "offset 3 is not what was exported"),
        (lambda a: [*a[:2], a[1], *a[2:]], "comes after the file had got to 1"),
        (lambda a: [a[0], changed(a[1], value='{"n":1}'), *a[2:]], "offset 0 is not what was exported"),
        (lambda a: [a[0], changed(a[1], timestamp_ms=999), *a[2:]], "offset 0 is not what was exported"),
        (lambda a: [a[0], changed(a[1], headers=[]), *a[2:]], "offset 0 is not what was exported"),
        (lambda a: [a[0], changed(a[1], headers=[("event-id", "evt_0"), ("traceparent", "")]), *a[2:]], "offset 0 is not what was"),
        (lambda a: [a[0], changed(a[1], offset=1), *a[2:]], "offset 1 is not what was exported"),
        (lambda a: [a[0], a[1], changed(a[2], value=None), *a[3:]], "offset 3 is not what was exported"),
        (lambda a: [changed(a[0], organization=organization_id(2, bytes(10))), *a[1:]], "offset 0 is not what was exported"),
        (lambda a: [changed(a[0], format=9), *a[1:]], "line 1: format 9 is not known here"),
        (lambda a: [*a[:-1], changed(a[-1], records=6)], "counts 6 records, and 5"),
        (lambda a: [*a[:-1], changed(a[-1], next_offset=12)], "is at offset 12"),
        (lambda a: [*a, a[1]], "comes after the file had got to 20"),
        (lambda a: [*a, a[0]], "a second beginning"),
        (lambda a: a[1:], "does not begin with what it is about"),
        (lambda a: [a[0], b"{}\n", *a[1:]], "line 2: it is no line of an export"),
        (lambda a: [a[0], changed(a[1], value=None, value_base64="!"), *a[2:]], "offset 0 cannot be read"),
        (lambda a: [a[0], changed(a[1], headers=[("event-id", {})]), *a[2:]], "offset 0 cannot be read"),
        (lambda a: [], "the file is empty"),
    ],
)
def test_what_was_done_to_a_file_is_found_where_it_was_done(spoil: Callable[[list[bytes]], list[bytes]], why: str) -> None:
    with pytest.raises(Broken, match=why):
        check.check(spoil(written()))


@given(data=st.data())
def test_no_byte_of_a_record_can_be_changed_unseen(data: st.DataObject) -> None:
    lines = written()
    number = data.draw(st.sampled_from([n for n, line in enumerate(lines) if isinstance(decode(line), Entry)]))
    place = data.draw(st.integers(0, len(lines[number]) - 2))
    spoiled = bytearray(lines[number])
    spoiled[place] ^= data.draw(st.integers(1, 255))
    lines[number] = bytes(spoiled)
    if b"\n" in spoiled[:-1]:
        lines[number : number + 1] = bytes(spoiled).splitlines(keepends=True)
    before = msgspec.json.decode(written()[number])
    try:
        check.check(lines)
    except Broken:
        return
    # Not one byte of what it says is another: JSON has more than one way to write the same, as `E` for `e` in an escape.
    assert msgspec.json.decode(lines[number]) == before


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_file_that_was_stopped_is_whole_up_to_its_last_checkpoint(cut: int) -> None:
    lines = written()
    whole = b"".join(lines[:4])
    state = check.check((whole + lines[4][:cut]).splitlines(keepends=True))
    assert (state.size, state.records, state.next_offset) == (len(whole), 2, 4)


def test_a_link_that_was_noted_is_found_at_a_checkpoint_only() -> None:
    lines = written()
    links = [line.chain for line in map(decode, lines) if isinstance(line, Entry)]
    assert check.check(lines, noted=links[1]).noted
    assert not check.check(lines, noted=links[0]).noted
    assert not check.check(written(RECORDS[:4]), noted=links[4]).noted


def test_the_chain_of_one_export_is_that_of_many_that_went_on() -> None:
    assert check.check(written(every=1)).link == check.check(written(every=100)).link
