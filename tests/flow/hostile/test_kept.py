"""What only looks dangerous is taken, and comes back byte by byte: inbox, event and webhook (RELIABILITY rows 23, 28, 32, 33, 35, 39)."""

from __future__ import annotations

import json

import pytest

from tests.flow.hostile.judged import Caller, assert_refused, native, posted
from tests.flow.raw import LogMark
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System, until

#: The accented letter of "Café" as one character and as two (Unicode Normalization Forms C and D).
NFC, NFD = "Caf\u00e9", "Cafe\u0301"
PAYLOADS: dict[str, bytes] = {
    "null": b"null",
    "a string": b'"x"',
    "an empty string": b'""',
    "an array": b"[ ]",
    "blanks inside": b'{\r\n\t"b" :  1 ,"a":[ 1,2 ] }',
    "the order of names": b'{"z":1,"a":2,"\xc3\xa9":3,"":4}',
    "escapes as they were sent": b'"\\u0041\\/\\u00e9\\ud83d\\ude00\\b\\f"',
    "arrays 256 deep": b"[" * 256 + b"]" * 256,
    "objects 256 deep": b'{"":' * 256 + b"1" + b"}" * 256,
    "both 256 deep": b'[{"":' * 128 + b"1" + b"}]" * 128,
    "integers past 53 and 64 bits": b"[9007199254740993,9223372036854775807,9223372036854775808,18446744073709551616,-9223372036854775809]",
    "an integer of 308 digits": b"9" * 308,
    "a number of 1,000 characters": b"0." + b"3" * 998,
    "numbers at the ends of a double": b"[5e-324,1.7976931348623157e308,-0,-0.0,0e5,1E+2,1.10]",
    "digits in a string": b'"' + b"9" * 5_000 + b'"',
    "1e131071 in a string": b'"1e131071"',
    "noncharacters": '"\uffff\ufffe\ufdd0\U0010ffff"'.encode(),
    "the other direction": '"\u202eabc\u202c\u2066x\u2069"'.encode(),
    "what has no width": '"a\u200bb\u200cc\u200dd\ufeffe"'.encode(),
    "a family of four": '"\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308"'.encode(),
    "both normal forms": json.dumps({NFC: 1, NFD: 2}, ensure_ascii=False).encode(),
    "line and paragraph separators": '"a\u2028b\u2029c\x85d\x7fe"'.encode(),
    "escaped control characters": b'"\\u0001\\n\\r\\t\\u001f{\\"level\\":\\"error\\"}"',
    "names of JavaScript": b'{"__proto__":{"admin":true},"constructor":{"prototype":{"x":1}},"toString":1}',
    "a reference": b'{"$ref":"file:///etc/passwd","$schema":"http://169.254.169.254/"}',
    "templates": b'["{{7*7}}","${7*7}","#{7*7}","<%= 7*7 %>","{% raw %}","%s%n","{0}"]',
    "a look-up": b'"${jndi:ldap://127.0.0.1/a}"',
    "SQL": b"\"'; DROP TABLE projections.inbox; --\"",
    "HTML": b'"<script>alert(1)</script><img src=x onerror=alert(1)>"',
    "a formula": b'["=cmd|\' /C calc\'!A0","@SUM(1)"]',
    "a shell": b'"$(reboot) `reboot` ; reboot"',
    "colours of a terminal": b'"\\u001b[31mred\\u001b[0m"',
}  # fmt: skip


@pytest.fixture(scope="module")
def kept_everywhere(system: System) -> dict[str, tuple[bytes, bytes]]:
    """Name → payload in the inbox and in the webhook's body, after all of them were posted one behind the other."""
    owner = make_tenant(system.settings, "kept everywhere")
    with Receiver() as receiver, Caller(system, owner.key) as caller:
        _, secret = make_endpoint(system.settings, owner.organization, receiver.url())
        receiver.secrets["/webhooks"] = secret
        answers = {name: caller.post(native(payload)) for name, payload in PAYLOADS.items()}
        posted_as = {name: answer.document["id"] for name, answer in answers.items() if answer.status == 201}
        caller.accepted(caller.post(native(b'"the end"')))
        inbox = caller.inbox()
        until(lambda: len(receiver.of()) > len(posted_as), 30, "the webhooks")
        sent = {one.headers["webhook-id"]: one for one in receiver.of()}
    assert all(one.verified for one in sent.values())
    return {name: (inbox[posted]["payload"], _data(sent[posted].body)) for name, posted in posted_as.items()}


def _data(webhook: bytes) -> bytes:
    """`data` is the last member of a webhook's body."""
    return webhook.partition(b'"data":')[2].removesuffix(b"}")


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_comes_back_as_the_bytes_that_were_sent(name: str, kept_everywhere: dict[str, tuple[bytes, bytes]]) -> None:
    assert kept_everywhere[name] == (PAYLOADS[name], PAYLOADS[name])


@pytest.mark.parametrize(
    "subject",
    ["\uffff", "\u202egnp.exe", "a\u200bb", "👩‍👩‍👧", NFC, NFD, "a\u2028b", "__proto__", "{{7*7}}", "${jndi:ldap://x}",
     "'; DROP TABLE x; --",
     "<script>", "../../etc/passwd", "%00", "x" * 256, "😀" * 256],
)  # fmt: skip
def test_a_subject_and_a_key_are_kept_as_they_are_and_no_log_line_breaks(subject: str, system: System, reader: Tenant) -> None:
    mark = LogMark(system)
    key = subject[:200] + " of a subject"
    more = f',"subject":{json.dumps(subject, ensure_ascii=False)},"idempotency_key":{json.dumps(key, ensure_ascii=False)}'.encode()
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.post(native(b"1", more)))
        assert kept.event["subject"] == subject
        assert json.loads(kept.fields["subject"]) == subject
        again = caller.post(native(b"1", more))
        assert (again.status, again.slug, again.document["id"]) == (409, "duplicate-event", kept.event["id"])
    until(lambda: len(mark.lines("event.refused", problem="duplicate-event")) == 1, 5, "the refusal's log line")
    assert [line["event_id"] for line in mark.lines("event.appended")] == [kept.event["id"]]


def test_the_normal_forms_of_a_key_are_two_keys(system: System, reader: Tenant) -> None:
    bodies = [native(b"1", f',"idempotency_key":"{key}"'.encode()) for key in (NFC, NFD)]
    with Caller(system, reader.key) as caller:
        first, second = (caller.accepted(caller.post(body)).event["id"] for body in bodies)
        assert first != second
        for body, event_id in zip(bodies, (first, second), strict=True):
            document = assert_refused(system, reader.key, posted(reader, body), 409, "duplicate-event")
            assert document["id"] == event_id


@pytest.mark.parametrize("text", ["2028-02-29t23:59:59.123456789z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_is_kept_as_it_was_written(text: str, system: System, reader: Tenant) -> None:
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.post(native(b"1", b',"occurred_at":"%b"' % text.encode())))
    assert (kept.event["occurred_at"], json.loads(kept.fields["occurred_at"])) == (text, text)
