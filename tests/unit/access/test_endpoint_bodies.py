from __future__ import annotations

from typing import Any

import pytest

from access import egress
from access.endpoint_bodies import Configuration, LegacySignature, Rules, changed

URL = "https://x.example/"
RULES = Rules(egress.Rules(), endpoints_max=50)


def made(**members: Any) -> Configuration:
    return changed(None, {"url": URL, **members}, RULES)


def test_what_is_left_out_has_its_default() -> None:
    assert made() == Configuration(url=URL)
    assert made(description=None, event_types=None, headers=None, schedule=None, fifo=None) == made()


def test_a_patch_is_a_merge_patch() -> None:
    before = made(description="x", headers={"A": "1", "B": "2"}, legacy_signature={"header": "X-S", "scheme": "base64-body"})
    after = changed(before, {"description": None, "headers": {"A": None, "C": "3"}, "legacy_signature": {"scheme": "t-v1-hex"}}, RULES)
    assert after == made(headers={"B": "2", "C": "3"}, legacy_signature={"header": "X-S", "scheme": "t-v1-hex"})
    assert changed(after, {"headers": None, "legacy_signature": None}, RULES) == made()
    assert changed(before, {}, RULES) == before


def test_pauses_make_a_schedule_custom_and_the_name_of_another_drops_them() -> None:
    own = made(schedule_s=[1, 2.5])
    assert (own.schedule, own.schedule_s) == ("custom", [1.0, 2.5])
    assert made(schedule="custom", schedule_s=[1, 2.5]) == own
    assert changed(own, {"schedule_s": [3]}, RULES).schedule_s == [3.0]
    assert changed(own, {"schedule": "custom"}, RULES) == own
    assert changed(own, {"schedule": "standard"}, RULES) == made(schedule="standard")
    assert changed(own, {"schedule": "standard", "schedule_s": None}, RULES) == made(schedule="standard")
    assert changed(own, {"schedule": None, "schedule_s": None}, RULES) == made()
    assert changed(own, {"schedule": None}, RULES) == made()
    assert changed(own, {"schedule_s": None}, RULES) == made()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"url": None}, "url"),
        ({"url": "http://x.example/"}, "https://"),
        ({"url": 7}, "url"),
        ({"description": "a\nb"}, "the description must have"),
        ({"description": "x" * 1_001}, "description"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["a b"]}, "no event type"),
        ({"event_types": ["a"] * 101}, "event_types"),
        ({"headers": {"Host": "x"}}, "the header Host is set by the sender"),
        ({"headers": {"X": 1}}, "headers"),
        ({"headers": ["X"]}, "headers"),
        ({"rate_per_minute": 0}, "rate_per_minute"),
        ({"rate_per_minute": 2**31}, "rate_per_minute"),
        ({"rate_per_minute": True}, "rate_per_minute"),
        ({"concurrency": 65}, "concurrency"),
        ({"schedule": "hourly"}, "schedule"),
        ({"schedule": "custom"}, "schedule_s belongs to"),
        ({"schedule": "standard", "schedule_s": [1]}, "schedule_s belongs to"),
        ({"schedule_s": []}, "schedule_s"),
        ({"schedule_s": [0.5]}, "schedule_s"),
        ({"schedule_s": [86_401]}, "schedule_s"),
        ({"schedule_s": [1] * 21}, "schedule_s"),
        ({"deadline_s": 0.9}, "deadline_s"),
        ({"deadline_s": 61}, "deadline_s"),
        ({"legacy_signature": {"header": "X-S"}}, "scheme"),
        ({"legacy_signature": {"header": "X-S", "scheme": "md5"}}, "scheme"),
        ({"legacy_signature": {"header": "webhook-signature", "scheme": "base64-body"}}, "set by the sender"),
        ({"legacy_signature": {"header": "X S", "scheme": "base64-body"}}, "a header's name"),
        ({"legacy_signature": {"header": "x-s", "scheme": "base64-body"}, "headers": {"X-S": "1"}}, "cannot hold a value of your own"),
        ({"fifo_block": True}, "fifo_block belongs to fifo"),
        ({"fifo": True, "concurrency": 2}, "one event at a time"),
        ({"secret": "whsec_"}, "secret"),
        ({"enabled": False}, "enabled"),
    ],
)
def test_what_cannot_be_is_refused_on_every_way_in_and_the_member_named(members: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made(**members)
    with pytest.raises(ValueError, match=says):
        changed(made(), members, RULES)


def test_whether_there_is_an_order_is_chosen_when_an_endpoint_is_made_and_whether_it_blocks_at_any_time() -> None:
    ordered = made(fifo=True)
    assert (ordered.fifo, ordered.fifo_block, ordered.concurrency) == (True, False, None)
    assert changed(ordered, {"fifo": True, "fifo_block": True, "concurrency": 1}, RULES).fifo_block
    for before, fifo in ((ordered, False), (ordered, None), (made(), True)):
        with pytest.raises(ValueError, match="make another one"):
            changed(before, {"fifo": fifo}, RULES)


def test_a_patch_of_any_depth_is_refused_and_not_run_out_of_stack() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested too deeply"):
        changed(made(), {"headers": deep}, RULES)


def test_nothing_of_a_header_or_a_stored_signature_is_repeated_in_a_refusal() -> None:
    for headers in ({"X": "s3cr3t\n"}, {"X": "s3cr3té"}, {"X": "s3cr3t" * 1_000}, {"Host": "s3cr3t"}, {"X": {"s3cr3t": "s3cr3t"}}):
        with pytest.raises(ValueError, match="header") as raised:
            made(headers=headers)
        assert "s3cr3t" not in str(raised.value)
    assert made(legacy_signature={"header": "X-S", "scheme": "t-v1-hex"}).legacy_signature == LegacySignature("X-S", "t-v1-hex")
