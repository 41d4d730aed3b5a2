"""Everything that `triggers doctor` looks at, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from triggers.doctor import kafka, machine, servers
from triggers.doctor.configured import configured
from triggers.doctor.findings import Check

CHECKS: Final[Mapping[str, Check]] = {
    "settings": configured,
    "brokers": kafka.brokers,
    "topics": kafka.topics,
    "groups": kafka.groups,
    "postgres": servers.postgres,
    "folds": servers.folds,
    "redis": servers.redis_server,
    "clock.postgres": machine.clock_of_postgres,
    "clock.redis": machine.clock_of_redis,
    "sockets": machine.sockets,
    "machine": machine.room,
}
