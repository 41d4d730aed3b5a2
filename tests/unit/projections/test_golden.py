"""The golden messages of each topic, through the folds that read it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import get_type_hints

import pytest

from projections import inbox
from projections.fold import Fold
from projections.folds import FOLDS
from runtime.sql import load
from schemas import codec
from schemas.keys import record_key
from schemas.records import Record

EXAMPLES = files("schemas") / "examples"
GOLDEN = [
    pytest.param(fold, one.read_bytes(), id=f"{fold.topic}/{one.name}")
    for fold in FOLDS
    for one in sorted((EXAMPLES / fold.topic).iterdir(), key=lambda f: f.name)
]


@pytest.mark.parametrize(("fold", "value"), GOLDEN)
def test_every_golden_message_is_folded_and_none_is_parked(fold: Fold, value: bytes) -> None:
    document = json.loads(value)
    organization = document.get("organization") or document.get("event", {}).get("organization")
    decoded = fold.decode(0, [Record(7, 1_000, record_key(organization) if organization else b"-", value, ())])
    # What is about one record of another topic is for those who list that topic.
    assert len(decoded.records) == (document.get("kind") != "dropped")
    assert not decoded.parked


@pytest.mark.parametrize("name", ["full.json", "unknown_field.json", "cloudevent.json"])
def test_a_row_of_the_inbox_holds_what_the_event_says(name: str) -> None:
    record = codec.accepted.decode((EXAMPLES / "events.accepted" / name).read_bytes())
    (row,), high = inbox.fold(3, [(Record(7, 1_000, None, b"", ()), record)], -1)
    assert (row.position, row.payload, row.base64, high) == (7, bytes(record.event.payload), record.event.base64, record.ingested.offset)
    assert (None if row.cloudevent is None else json.loads(row.cloudevent)) == record.event.cloudevent


def test_copy_is_told_the_columns_of_a_row_and_their_types_in_the_same_order() -> None:
    """COPY in binary casts nothing: a column more or less, or in another place, is refused or read as something else."""
    columns = re.search(r"COPY inbox \((.*?)\)", load("projections", "copy_inbox").decode(), re.DOTALL)
    assert columns is not None
    assert tuple(re.findall(r"\w+", columns[1])) == inbox.Row._fields
    wide = {str: "text", str | None: "text", bytes: "bytea", bool: "bool", int: "int8"}
    narrow = {"generation": "int4", "partition": "int4"}
    assert tuple(narrow.get(name, wide[kind]) for name, kind in get_type_hints(inbox.Row).items()) == inbox._TYPES
