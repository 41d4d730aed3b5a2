"""What a backup looks at first."""

from __future__ import annotations

from schemas.topics import (
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
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
