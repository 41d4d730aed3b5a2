"""What a backup looks at first, and where groups stand once gaps are closed."""

from __future__ import annotations

from delivery.journal import Checkpoint, encode_checkpoint, read_checkpoint
from projections.log_reader import Range
from schemas.topics import (
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
    DELIVERY_GROUP,
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATES,
    EVENTS_INGESTED,
    INBOX_ACKS,
    Topic,
    declared,
    names,
    retry_topic,
)
from triggers.backup.cut import order
from triggers.backup.manifest import Committed
from triggers.backup.produce import moved

DELAYS = (5.0, 30.0)


def test_every_effect_is_looked_at_before_its_cause() -> None:
    topics = declared(DELAYS)
    stages = order(topics, DELAYS)
    place = {name: number for number, stage in enumerate(stages) for name in stage}
    assert sorted(place) == sorted(set(names(topics)) - {DEDUP_CHANGELOG})
    first, second = map(retry_topic, DELAYS)
    assert place[first] == place[second]  # they lead to each other
    for effect, cause in (
        (DELIVERIES_FIFO, DELIVERIES_ATTEMPTS),
        (DELIVERIES_DEAD, first),
        (DELIVERIES_DEAD, DELIVERIES_ATTEMPTS),
        (first, DELIVERIES_ATTEMPTS),
        (DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED),
        (INBOX_ACKS, EVENTS_ACCEPTED),
        (EVENTS_DUPLICATES, EVENTS_INGESTED),
        (EVENTS_ACCEPTED, EVENTS_INGESTED),
    ):
        assert place[effect] < place[cause], (effect, cause)


def test_a_topic_nobody_has_placed_lies_between_the_journal_and_the_events() -> None:
    stages = order((*declared(DELAYS), Topic("deliveries.new", "?")), DELAYS)
    at = next(number for number, stage in enumerate(stages) if "deliveries.new" in stage)
    assert stages.index((DELIVERIES_ATTEMPTS,)) < at < stages.index((EVENTS_ACCEPTED,))


def test_groups_move_with_partitions_whose_first_records_are_gone() -> None:
    ranges = {("retry", 0): Range(10, 20), (EVENTS_ACCEPTED, 0): Range(0, 9), ("dead", 0): Range(7, 7)}
    checkpoint = encode_checkpoint(Checkpoint(h=3, t={"retry": 12, "dead": 5}))

    def at(topic: str, offset: int, metadata: str = "") -> Committed:
        return moved(Committed(group=DELIVERY_GROUP, topic=topic, partition=0, offset=offset, metadata=metadata), ranges)

    assert [at("retry", offset).offset for offset in (4, 10, 15, 20)] == [0, 0, 5, 10]
    accepted = at(EVENTS_ACCEPTED, 8, checkpoint)
    assert (accepted.offset, read_checkpoint(accepted.metadata)) == (8, Checkpoint(h=3, t={"retry": 2, "dead": 0}))
