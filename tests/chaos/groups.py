"""Who owns what in a consumer group, as the broker says: a fault that moved no partition was not survived, it did not happen."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient

from runtime.settings import KafkaSettings
from runtime.topics import admin

_TIMEOUT_S = 5.0


class Groups:
    """A look at the groups of one broker."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._client: AdminClient = admin(kafka)

    def owned(self, group: str) -> dict[str, set[tuple[str, int]]]:
        """Static member → (topic, partition) it owns now. Nobody owns anything while the group rebalances."""
        described = self._client.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)[group].result(_TIMEOUT_S + 1)
        return {
            member.group_instance_id: {(tp.topic, tp.partition) for tp in member.assignment.topic_partitions}
            for member in described.members
        }
