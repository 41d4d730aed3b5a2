"""What the commands for dead letters and rejected records have in common: places, times, bytes that are safe to print."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
import typer

from access.times import iso, parse_duration_s, parse_time_ms
from projections.trail import At
from runtime.clock import SYSTEM
from schemas.lifecycle import Dropped
from triggers.commands.output import show

Since = Annotated[str | None, typer.Option(help="From this time on: 2027-01-31T00:00:00Z, or 24h for a day ago.")]
Until = Annotated[str | None, typer.Option(help="Until before this time: as --since.")]
WithDropped = Annotated[bool, typer.Option("--dropped", help="Also those that were dropped.")]
Limit = Annotated[int, typer.Option(min=1, help="Rows at most.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print JSON, a document a line.")]
Places = Annotated[list[str], typer.Argument(help="Places as `list` shows them: 2@41.")]
Why = Annotated[str | None, typer.Option(help="For those who read the audit log.")]
Place = Annotated[str, typer.Argument(help="Its place as `list` shows it: 2@41.")]


class Parked(Protocol):
    """A dead letter or a rejected record."""

    @property
    def at(self) -> At: ...

    @property
    def dropped(self) -> Dropped | None: ...


P = TypeVar("P", bound=Parked)

#: Bytes of a value shown to people; --json has all.
_SHOWN_BYTES_MAX: Final = 4_096
_PLACE: Final = re.compile(r"\A(?:(?P<topic>[a-z.]+)\[(?P<of>\d{1,6})\]|(?P<partition>\d{1,6}))@(?P<offset>\d{1,18})\Z", re.ASCII)


def place_of(text: str, topic: str) -> At:
    """`2@41` or `topic[2]@41`. Raises `ValueError`."""
    found = _PLACE.match(text)
    if found is None or found["topic"] not in (None, topic):
        raise ValueError(f"{text!r} is no place of {topic}: write partition@offset, as `list` shows it: 2@41")
    return At(topic, int(found["of"] or found["partition"]), int(found["offset"]))


def place_text(at: At) -> str:
    return f"{at.partition}@{at.offset}"


def check_reason(reason: str | None, known: Sequence[str]) -> None:
    """Raises `ValueError`."""
    if reason is not None and reason not in known:
        raise ValueError(f"there is no reason {reason!r}: there are {', '.join(known)}")


def dropped_text(dropped: Dropped | None) -> str | None:
    return None if dropped is None else f"{iso(dropped.at_ms)} by {dropped.actor}"


def dropped_document(dropped: Dropped | None) -> dict[str, Any] | None:
    return None if dropped is None else {"at": iso(dropped.at_ms), "actor": dropped.actor, "why": dropped.why}


def moment_of(text: str | None) -> int | None:
    """Unix ms of a time, or of a duration before now. Raises `ValueError`."""
    if text is None:
        return None
    try:
        return SYSTEM.now_ms() - parse_duration_s(text) * 1000
    except ValueError:
        return parse_time_ms(text)


def escaped(value: bytes | None, *, bytes_max: int | None = None) -> str:
    """Bytes of a stranger as printable ASCII: nothing in them reaches a terminal as it is. `-` for none."""
    if value is None:
        return "-"
    shown = value if bytes_max is None else value[:bytes_max]
    more = f" ... and {len(value) - len(shown):,} bytes more (--json has all)" if len(shown) < len(value) else ""
    return repr(shown)[2:-1] + more


def shown(value: bytes | None) -> str:
    return escaped(value, bytes_max=_SHOWN_BYTES_MAX)


def printable(text: str) -> str:
    """Text of a stranger for one line of a terminal."""
    return ascii(text)[1:-1]


def safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are printable."""
    return {name: printable(one) if isinstance(one, str) else one for name, one in row.items()}


def time_text(ms: int) -> str:
    """A record's own time, which may be anything that fits 64 bits."""
    try:
        return iso(ms) or ""
    except OverflowError:
        return f"{ms} ms"


def print_rows(rows: Iterable[Mapping[str, Any]], limit: int, *, json: bool) -> None:
    """At most `limit` rows: a table, or with `json` a document a line as it is found. That there are more stands on standard error."""
    each = iter(rows)
    if json:
        for row in islice(each, limit):
            print(msgspec.json.encode(dict(row)).decode())
    else:
        show(
            [{name: printable(one) if isinstance(one, str) else one for name, one in row.items()} for row in islice(each, limit)],
            json=False,
        )
    if next(each, None) is not None:
        print(f"triggers: there are more than {limit:,}: narrow the list, or raise --limit", file=sys.stderr)


def drop_all(found: Sequence[P], drop: Callable[[P], Dropped]) -> list[dict[str, Any]]:
    """Those that were not dropped before. A row of each."""
    return [
        {"place": place_text(one.at), "dropped": "before" if one.dropped else "now", "actor": (one.dropped or drop(one)).actor}
        for one in found
    ]
