"""Logs of any shape, moved to more partitions: the order of each key stays, and every bound keeps its meaning."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from schemas.keys import partition_of
from schemas.records import Record
from triggers.grow.places import Moved, Place, Places, by_ingested, merged

KEYS = [b"org_%d" % number for number in range(8)]
Log = dict[int, list[Record]]

counts = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda two: (two[0], two[0] + two[1]))
#: (key, time): times repeat and go back.
written = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 20)), max_size=60)


def log_of(records: list[tuple[bytes, int]], partitions: int, *, begin: int = 0) -> Log:
    """Each partition begins at offset `begin`, as where retention has taken what was before."""
    log: Log = {number: [] for number in range(partitions)}
    for key, at_ms in records:
        to = log[partition_of(key, partitions)]
        to.append(Record(begin + len(to), at_ms, key, b"", ()))
    return log


def by_key(moves: list[Moved]) -> dict[bytes, list[Moved]]:
    """In the order of their new places."""
    found = defaultdict(list)
    for move in sorted(moves, key=lambda one: one.new):
        found[move.record.key or b""].append(move)
    return found


@given(counts, written, st.integers(0, 9))
def test_every_record_is_moved_once_to_the_partition_of_its_key_in_the_order_it_had(
    count: tuple[int, int], records: list[tuple[bytes, int]], begin: int
) -> None:
    log = log_of(records, count[0], begin=begin)
    moves = list(merged(log, count[1], Places()))
    assert sorted(move.old for move in moves) == [Place(number, one.offset) for number, part in log.items() for one in part]
    for key, found in by_key(moves).items():
        assert {move.new.partition for move in found} == {partition_of(key, count[1])}
        assert [move.old for move in found] == sorted(move.old for move in found)
    for number in range(count[1]):
        offsets = sorted(move.new.offset for move in moves if move.new.partition == number)
        assert offsets == list(range(len(offsets)))  # from 0, without a hole


@given(counts, written, st.integers(0, 9))
def test_a_bound_has_the_same_records_of_a_key_on_each_side_as_before(
    count: tuple[int, int], records: list[tuple[bytes, int]], begin: int
) -> None:
    log, places = log_of(records, count[0], begin=begin), Places()
    moves = list(merged(log, count[1], places))
    for key, found in by_key(moves).items():
        source, target = partition_of(key, count[0]), partition_of(key, count[1])
        for bound in range(begin + len(log[source]) + 2):
            first = places.at_or_after(Place(source, bound), target)
            last = places.at_or_before(Place(source, bound), target)
            for move in found:
                assert (move.old.offset >= bound) == (first is not None and move.new.offset >= first)
                assert (move.old.offset <= bound) == (move.new.offset <= last)
        for move in found:
            assert places.of(move.old) == move.new
    assert places.of(Place(0, 10**6)) is None


@given(counts, written, st.data())
def test_what_a_group_has_done_with_comes_before_what_it_has_not(
    count: tuple[int, int], records: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    log = log_of(records, count[0])
    committed = {number: data.draw(st.integers(0, len(part))) for number, part in log.items()}
    places, ends = Places(), dict[int, int]()
    done = list(merged({number: part[: committed[number]] for number, part in log.items()}, count[1], places, ends=ends))
    commits = dict(ends)
    rest = list(merged({number: part[committed[number] :] for number, part in log.items()}, count[1], places, ends=ends))
    assert all(move.new.offset < commits[move.new.partition] for move in done)
    assert all(move.new.offset >= commits.get(move.new.partition, 0) for move in rest)
    for found in by_key([*done, *rest]).values():
        assert [move.old for move in found] == sorted(move.old for move in found)


@given(counts, written, st.data())
def test_accepted_records_go_as_their_ingested_ones_and_copies_of_a_crash_are_left_out(
    count: tuple[int, int], records: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    ingested, places = log_of(records, count[0]), Places()
    list(merged(ingested, count[1], places))
    accepted: Log = {}
    for number, part in ingested.items():
        taken = [one for one in part if data.draw(st.booleans())]
        again = data.draw(st.integers(0, len(taken)))
        # Dedup died after it had forwarded `again` records, and forwarded some of them once more.
        copies = taken[data.draw(st.integers(0, again)) : again]
        accepted[number] = [
            one._replace(offset=at, value=b"%d" % one.offset) for at, one in enumerate([*taken[:again], *copies, *taken[again:]])
        ]
    order = by_ingested(places, lambda record: int(record.value or b""))
    moves = list(merged(accepted, count[1], Places(), order))
    origins = {number: list(dict.fromkeys(int(one.value or b"") for one in part)) for number, part in accepted.items()}
    assert sorted((move.old.partition, int(move.record.value or b"")) for move in moves) == [
        (number, origin) for number, part in sorted(origins.items()) for origin in part
    ]
    for number in range(count[1]):
        here = sorted((move for move in moves if move.new.partition == number), key=lambda move: move.new)
        news = [places.of(Place(move.old.partition, int(move.record.value or b""))) for move in here]
        assert all(place is not None and place.partition == number for place in news)
        offsets = [place.offset for place in news if place is not None]
        assert offsets == sorted(set(offsets))
