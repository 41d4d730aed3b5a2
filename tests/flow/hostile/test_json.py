"""JSON that parsers read in two ways, or cannot keep: refused with its reason, in every format alike (RELIABILITY rows 21 to 31, 33)."""

from __future__ import annotations

import pytest

from tests.flow.hostile.judged import assert_refused, native, posted
from tests.flow.raw import EVENT_BODY, Header, LogMark, RawConnection, assert_problem, event_bytes, nothing_appended, request_bytes
from triggers.provision import Tenant
from triggers.system import System, until

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "a byte order mark": b"\xef\xbb\xbf" + EVENT_BODY,
    "a byte order mark and nothing": b"\xef\xbb\xbf{}",
    "something behind it": EVENT_BODY + b" x",
    "two documents": EVENT_BODY + EVENT_BODY,
    "two lines": EVENT_BODY + b"\n" + EVENT_BODY,
    "a comment": b'{"type":"a.b", /* one */ "payload":1}',
    "a comment to the end": EVENT_BODY + b" // that was all",
    "single quotes": b"{'type':'a.b','payload':1}",
    "a name without quotes": b'{type:"a.b","payload":1}',
    "a comma too many": b'{"type":"a.b","payload":1,}',
    "half of it": EVENT_BODY[:-5],
    "NaN": native(b"NaN"),
    "Infinity": native(b"[Infinity]"),
    "-Infinity": native(b'{"a":-Infinity}'),
    "nan": native(b"nan"),
    "a leading zero": native(b"007"),
    "a plus": native(b"+1"),
    "a dot without digits": native(b"1."),
    "hexadecimal": native(b"0x10"),
    "half a true": native(b"tru"),
    "a tab in a string": native(b'"a\tb"'),
    "a line feed in a string": native(b'"a\nb"'),
    "a raw NUL in a string": native(b'"a\0b"'),
    "a raw NUL behind it": EVENT_BODY + b"\0",
    "an escape there is not": native(b'"\\x41"'),
    "half an escape": native(b'"\\u00"'),
    "FF": native(b'"\xff"'),
    "an overlong slash": native(b'"\xc0\xaf"'),
    "an overlong NUL": native(b'"\xc0\x80"'),
    "beyond Unicode": native(b'"\xf5\x80\x80\x80"'),
    "above U+10FFFF": native(b'"\xf4\x90\x80\x80"'),
    "a lone continuation": native(b'"\x80"'),
    "half a character at the end": b'{"type":"a.b","payload":"\xe2\x82',
    "half a character in a string": native(b'"\xe2\x82"'),
    "not UTF-8 in a name": native(b'{"\xff":1}'),
    "not UTF-8 in the type": native(b"1", event_type=b'"a\xff"'),
}
#: What is JSON and is not taken: the reason in the problem, and the body.
REFUSED: dict[str, tuple[str, bytes]] = {
    **{
        f"{name} {levels} deep": ("too_deep", native(opening * levels + b"1" + closing * levels))
        for name, opening, closing in (("arrays", b"[", b"]"), ("objects", b'{"":', b"}"))
        for levels in (257, 2_000, 45_000)
    },
    "both by turns": ("too_deep", native(b'[{"":' * 200 + b"1" + b"}]" * 200)),
    "arrays 100,000 deep": ("too_deep", native(b"[" * 100_000 + b"]" * 100_000)),
    "arrays without end": ("too_deep", b"[" * 100_000),
    "an event of objects without end": ("too_deep", b'{"type":"a.b","payload":' + b'{"":' * 60_000),
    "the type twice": ("duplicate_key", b'{"type":"a.b","payload":1,"type":"c.d"}'),
    "the payload twice": ("duplicate_key", b'{"type":"a.b","payload":1,"payload":1}'),
    "the payload twice, once escaped": ("duplicate_key", b'{"type":"a.b","payload":1,"\\u0070ayload":2}'),
    "the key twice": ("duplicate_key", native(b"1", b',"idempotency_key":"a","idempotency_key":"b"')),
    "a name twice in the payload": ("duplicate_key", native(b'{"a":1,"b":2,"a":1}')),
    "a name twice far down": ("duplicate_key", native(b'[[{"x":[{"a":{},"a":{}}]}]]')),
    "an empty name twice": ("duplicate_key", native(b'{"":1,"":2}')),
    "a and \\u0061": ("duplicate_key", native(b'{"a":1,"\\u0061":2}')),
    "a pair and its escapes": ("duplicate_key", native('{"😀":1,"\\ud83d\\ude00":2}'.encode())),
    "1e131071 29,000 times": ("number_out_of_range", native(b"[" + b",".join([b"1e131071"] * 29_000) + b"]")),
    "1e309": ("number_out_of_range", native(b"1e309")),
    "1E+0000000309": ("number_out_of_range", native(b"1E+0000000309")),
    "-1e400": ("number_out_of_range", native(b"-1e400")),
    "1e-325": ("number_out_of_range", native(b"1e-325")),
    "an exponent of 10,000 digits": ("number_out_of_range", native(b"1e" + b"9" * 10_000)),
    "an integer of 5,000 digits": ("number_out_of_range", native(b"9" * 5_000)),
    "an integer of 309 digits": ("number_out_of_range", native(b"9" * 309)),
    "a fraction of 200,000 digits": ("number_out_of_range", native(b"0." + b"3" * 200_000)),
    "\\u0000 in a value": ("nul_character", native(b'"\\u0000"')),
    "\\u0000 in a name": ("nul_character", native(b'{"a\\u0000b":1}')),
    "\\u0000 in the type": ("nul_character", native(b"1", event_type=b'"a\\u0000"')),
    "\\u0000 in the key": ("nul_character", native(b"1", b',"idempotency_key":"a\\u0000b"')),
    "\\u0000 in the subject": ("nul_character", native(b"1", b',"subject":"\\u0000"')),
    "\\ud800": ("lone_surrogate", native(b'"\\ud800"')),
    "\\udc00": ("lone_surrogate", native(b'"\\udc00"')),
    "a reversed pair": ("lone_surrogate", native(b'"\\udc00\\ud800"')),
    "a pair with something between": ("lone_surrogate", native(b'"\\ud83d \\ude00"')),
    "half a pair in a name": ("lone_surrogate", native(b'{"\\uD83D":1}')),
    "half a pair in the key": ("lone_surrogate", native(b"1", b',"idempotency_key":"\\udfff"')),
    "ED A0 80": ("lone_surrogate", native(b'"\xed\xa0\x80"')),
    "a pair in CESU-8": ("lone_surrogate", native(b'"\xed\xa0\xbd\xed\xb8\x80"')),
    "26,000 members": ("too_many_members", native(b"[" + b",".join([b'{"a":1}'] * 26_000) + b"]")),
}
#: JSON, and nothing that could be an event.
NO_EVENT = {
    "null": b"null", "an array": b"[]", "an array of one": b"[%b]" % EVENT_BODY, "a string": b'"x"', "a number": b"1", "true": b"true",
    "an empty object": b"{}", "no payload": b'{"type":"a.b"}', "no type": b'{"payload":1}', "a null type": native(b"1", event_type=b"null"),
    "a null key": b'{"type":null,"payload":1}', "a number as key": native(b"1", b',"idempotency_key":7'),
}  # fmt: skip
STRUCTURED: Header = ("Content-Type", "application/cloudevents+json")
BINARY: tuple[Header, ...] = (("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "a.b"))


def structured(data: bytes, more: bytes = b"") -> bytes:
    return b'{"specversion":"1.0","id":"1","source":"s","type":"a.b","data":%b%b}' % (data, more)


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_json_is_400(name: str, system: System, tenant: Tenant) -> None:
    sent = posted(tenant, MALFORMED[name])
    if not MALFORMED[name]:
        sent = sent.removesuffix(b"\r\n") + b"Content-Length: 0\r\n\r\n"
    assert_refused(system, tenant.key, sent, 400, "malformed-json", reason="malformed")


@pytest.mark.parametrize("name", REFUSED)
def test_json_that_is_not_taken_is_422_with_its_reason(name: str, system: System, tenant: Tenant) -> None:
    reason, body = REFUSED[name]
    assert_refused(system, tenant.key, posted(tenant, body), 422, "invalid-event", reason=reason)


@pytest.mark.parametrize("name", NO_EVENT)
def test_json_that_is_no_event_is_422_and_says_what_one_is(name: str, system: System, tenant: Tenant) -> None:
    document = assert_refused(system, tenant.key, posted(tenant, NO_EVENT[name]), 422, "invalid-event")
    assert "payload" in document["detail"]


@pytest.mark.parametrize(
    ("status", "reason", "data"),
    [
        (400, "malformed", b"NaN"),
        (400, "malformed", b'"\xff"'),
        (422, "too_deep", b"[" * 257 + b"]" * 257),
        (422, "duplicate_key", b'{"a":1,"\\u0061":2}'),
        (422, "number_out_of_range", b"1e131071"),
        (422, "nul_character", b'"\\u0000"'),
        (422, "lone_surrogate", b'"\xed\xa0\x80"'),
    ],
)
def test_cloudevents_are_read_as_strictly(status: int, reason: str, data: bytes, system: System, tenant: Tenant) -> None:
    slug = "malformed-json" if status == 400 else "invalid-event"
    key: Header = ("X-API-Key", tenant.key)
    whole = request_bytes("POST", "/events", [key, STRUCTURED], structured(data))
    assert_refused(system, tenant.key, whole, status, slug, reason=reason)
    apart = request_bytes("POST", "/events", [key, ("Content-Type", "application/json"), *BINARY], data)
    assert_refused(system, tenant.key, apart, status, slug, reason=reason)


def test_a_cloudevent_with_a_name_twice_is_refused(system: System, tenant: Tenant) -> None:
    body = structured(b"1", b',"source":"other"')
    sent = request_bytes("POST", "/events", [("X-API-Key", tenant.key), STRUCTURED], body)
    assert_refused(system, tenant.key, sent, 422, "invalid-event", reason="duplicate_key")


@pytest.mark.parametrize(
    ("status", "slug", "value"),
    [
        (400, "invalid-header", "%ED%A0%80"),
        (400, "invalid-header", "%FF"),
        (400, "invalid-header", "\xe9"),
        (422, "invalid-event", "%00"),
        (422, "invalid-event", "a%0D%0AX-Injected: 1"),
        (422, "invalid-event", ""),
    ],
)
def test_attributes_in_headers_are_read_as_strictly(status: int, slug: str, value: str, system: System, tenant: Tenant) -> None:
    headers: list[Header] = [("X-API-Key", tenant.key), ("Content-Type", "application/json"), *BINARY, ("ce-subject", value)]
    assert_refused(system, tenant.key, request_bytes("POST", "/events", headers, b"1"), status, slug)


def test_every_raw_control_character_is_refused_and_none_breaks_a_log_line(system: System, tenant: Tenant) -> None:
    mark = LogMark(system)
    with nothing_appended(system.settings), RawConnection(system.settings) as connection:
        for code in range(0x20):
            for body in (native(b'"a%cb"' % code), native(b"1", event_type=b'"a%c"' % code), native(b"1", b',"subject":"%c"' % code)):
                connection.send(event_bytes(tenant.key, body=body))
                assert_problem(connection.answer(), 400, "malformed-json")
        for escaped in (b"\\u000a", b"\\u001f", b"\\u007f", b"\\u0085", b"\\r\\n{}"):
            for more in (b',"subject":"%b"', b',"idempotency_key":"%b"'):
                connection.send(event_bytes(tenant.key, body=native(b"1", more % escaped)))
                assert_problem(connection.answer(), 422, "invalid-event")
    until(lambda: len(mark.lines("event.refused")) == 32 * 3 + 10, 5, "a log line for each")
