"""What a FIFO endpoint that is behind finds in the log: its plans in the journal, then their events among those accepted."""

from __future__ import annotations

from typing import Final, NamedTuple

from delivery.fifo_pages import Pages
from delivery.fifo_queue import Item
from delivery.values import carried, ingested_value
from schemas import codec
from schemas.codec import CodecError
from schemas.deliveries import FifoPosition, Planned
from schemas.keys import record_key
from schemas.topics import DELIVERIES_ATTEMPTS, EVENTS_ACCEPTED

#: Of one page.
_PLANS_MAX: Final = 50
_BYTES_MAX: Final = 1_048_576


class Found(NamedTuple):
    """`next_offset`: where in the journal there may be more. `whole`: no plan below it was left out."""

    items: list[Item]
    next_offset: int
    whole: bool


class Source:
    """Of one partition. `end`: the journal is known to hold every plan below this offset, and those above are offered (`delivery.fifo`)."""

    def __init__(self, pages: Pages, partition: int, end: int) -> None:
        self._pages = pages
        self._partition = partition
        self.end = end

    async def read(self, position: FifoPosition) -> Found:
        """The next events planned for an endpoint, in order. Raises what `Pages.read` does."""
        key, needle = record_key(position.organization), position.endpoint_id.encode()
        page = await self._pages.read(
            DELIVERIES_ATTEMPTS, self._partition, position.journal_offset, self.end,
            lambda k, value, _: k == key and value is not None and needle in value and b'"planned"' in value,
            records_max=_PLANS_MAX, bytes_max=_BYTES_MAX,
        )  # fmt: skip
        plans: dict[int, int] = {}
        last = position.accepted_offset
        for record in page.records:
            planned = _planned(record.value)
            if planned is not None and position.endpoint_id in planned.fifo and planned.accepted_offset > last:
                last = planned.accepted_offset  # a plan made twice, by a worker that stood still, counts once
                plans[last] = record.offset
        if not plans:
            return Found([], page.next_offset, whole=True)
        events = await self._pages.read(
            EVENTS_ACCEPTED, self._partition, min(plans), last + 1,
            lambda _key, _value, offset: offset in plans, records_max=len(plans), bytes_max=_BYTES_MAX,
        )  # fmt: skip
        items = []
        for record in events.records:
            event = codec.accepted.decode(record.value).event
            items.append(Item(plans[record.offset], record.offset, event, ingested_value(record), carried(record)))
        return Found(items, page.next_offset, whole=len(items) == len(plans))


def _planned(value: bytes | None) -> Planned | None:
    try:
        entry = codec.journal.decode(value)
    except CodecError:
        return None
    return entry if isinstance(entry, Planned) else None
