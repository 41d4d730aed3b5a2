"""Envelopes: what was sealed comes back byte for byte, with this key, for this event, unaltered; nothing else opens."""

from __future__ import annotations

import base64
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.envelopes import DataKey, EnvelopeError, attempt_name, envelope_of, response_key, subject_digest
from schemas import codec, ids, keys
from schemas.deliveries import Attempted
from schemas.events import Ingested
from schemas.ids import DataKeyId
from schemas.topics import INGESTED_BYTES_MAX

KEY = DataKey(ids.data_key_id(0, bytes(10)), bytes(range(32)))
OTHER = DataKey(ids.data_key_id(1, bytes(10)), bytes(32))
ORGANIZATION = ids.organization_id(0, bytes(10))
CANARY = "jane@example.com"


def event(payload: bytes, subject: str | None = CANARY, **changes: object) -> Ingested:
    plain = Ingested(
        v=1, id=ids.event_id(5, bytes(10)), organization=ORGANIZATION, mode="live", type="a.b", received_at_ms=5,
        fingerprint=keys.fingerprint("a.b", subject, payload), subject=subject, payload=msgspec.Raw(payload),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5
)


@given(
    json,
    st.sampled_from([b"%b", b"[ %b ]", b'{"a":\n\t%b }']),
    st.none() | st.text(min_size=1),
    st.none() | st.just({"source": "s", "n": 1}),
)
def test_what_was_sealed_comes_back_byte_for_byte(
    value: object, shape: bytes, subject: str | None, attributes: dict[str, str | int | bool] | None
) -> None:
    sent = event(shape % msgspec.json.encode(value), subject, cloudevent=attributes)
    sealed = codec.ingested.decode(codec.encode(KEY.seal(sent)))  # over the log and back
    assert (sealed.encoding, sealed.subject, sealed.cloudevent) == ("aes256gcm", None, None)
    opened = KEY.open(sealed)
    assert (opened.payload, opened.subject, opened.cloudevent) == (bytes(sent.payload), subject, attributes)
    assert KEY.plain(sealed) == sent
    assert list(opened.cloudevent or ()) == list(attributes or ())


@pytest.mark.parametrize("part", ["nonce", "ciphertext"])
def test_any_flipped_bit_is_refused(part: str) -> None:
    sealed = KEY.seal(event(b'{"a":1}'))
    envelope = envelope_of(bytes(sealed.payload))
    data = base64.b64decode(getattr(envelope, part))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        altered = codec.encode(msgspec.structs.replace(envelope, **{part: base64.b64encode(flipped).decode()}))
        with pytest.raises(EnvelopeError):
            KEY.open(msgspec.structs.replace(sealed, payload=msgspec.Raw(altered)))


@pytest.mark.parametrize(
    "moved",
    [{"id": ids.event_id(6, bytes(10))}, {"organization": ids.organization_id(1, bytes(10))}, {"mode": "test"}],
    ids=["event", "organization", "mode"],
)
def test_an_envelope_in_anothers_place_is_refused(moved: dict[str, object]) -> None:
    with pytest.raises(EnvelopeError, match="another event's"):
        KEY.open(msgspec.structs.replace(KEY.seal(event(b"1")), **moved))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(EnvelopeError):
        OTHER.open(KEY.seal(event(b"1")))


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"key":"dk_1","nonce":"","ciphertext":""}', b"[1]"])
def test_what_is_no_envelope_is_said_to_be_none(payload: bytes) -> None:
    with pytest.raises(EnvelopeError, match="no envelope"):
        KEY.open(event(payload))


def test_nothing_of_payload_subject_and_attributes_is_in_the_record() -> None:
    sealed = codec.encode(KEY.seal(event(b'"%b"' % CANARY.encode(), cloudevent={"subject": CANARY})))
    assert CANARY.encode() not in sealed
    assert base64.b64encode(CANARY.encode())[:-4] not in sealed


def test_the_same_event_is_never_sealed_to_the_same_bytes_twice_and_has_one_fingerprint() -> None:
    sent = event(b"1")
    assert len({bytes(KEY.seal(sent).payload) for _ in range(100)}) == 100
    assert KEY.fingerprint(sent.fingerprint) == KEY.fingerprint(sent.fingerprint)
    assert len({sent.fingerprint, KEY.fingerprint(sent.fingerprint), OTHER.fingerprint(sent.fingerprint)}) == 3


def test_the_largest_payload_fits_the_log_once_sealed() -> None:
    base64_data = b'"%b"' % base64.b64encode(bytes(262_144))  # data that is no JSON, the longest a payload can be
    attributes: dict[str, str | int | bool] = {"x": "\x7f" * 4_096}
    sealed = codec.encode(KEY.seal(event(base64_data, "\U0001f680" * 256, cloudevent=attributes)))
    assert len(sealed) + codec.ACCEPTED_OVERHEAD_BYTES_MAX < INGESTED_BYTES_MAX


def test_an_answer_opens_for_its_attempt_only() -> None:
    sent = event(b"1")
    sealed = KEY.seal_response(CANARY.encode(), sent, "ep_1\n\n1")
    assert response_key(sealed) == KEY.id
    assert CANARY not in sealed
    assert KEY.open_response(sealed, sent, "ep_1\n\n1") == CANARY.encode()
    with pytest.raises(EnvelopeError):
        KEY.open_response(sealed, sent, "ep_1\n\n2")
    with pytest.raises(EnvelopeError):
        KEY.open_response("aes256gcm." + str(KEY.id), sent, "ep_1\n\n1")


@pytest.mark.parametrize("response", [None, "", "dHJ5IGxhdGVy", base64.b64encode(b"aes256gcm.dk_1.x").decode()])
def test_an_answer_in_clear_is_never_taken_for_a_sealed_one(response: str | None) -> None:
    assert response_key(response) is None


def test_no_subject_has_the_digest_of_none() -> None:
    secret = bytes(32)
    digests = [subject_digest(secret, subject) for subject in (None, "", "-", "s", "s-")]
    assert len(set(digests)) == len(digests)
    assert subject_digest(secret, "a") != subject_digest(bytes([1]) * 32, "a")
    assert DataKeyId(KEY.id).startswith("dk_")


def test_what_was_sealed_today_opens_for_ever() -> None:
    """The golden message, under the key it was made with."""
    examples = files("schemas") / "examples"
    sealed = codec.ingested.decode((examples / "events.ingested" / "encrypted.json").read_bytes())
    plain = codec.ingested.decode((examples / "events.ingested" / "full.json").read_bytes())
    key = DataKey(envelope_of(bytes(sealed.payload)).key, bytes(range(32)))
    assert key.open(sealed) == (plain.subject, None, bytes(plain.payload))
    assert sealed.fingerprint == key.fingerprint(plain.fingerprint)
    failed = codec.journal.decode((examples / "deliveries.attempts" / "answer_sealed.json").read_bytes())
    assert isinstance(failed, Attempted)
    assert failed.response is not None
    about = msgspec.structs.replace(sealed, id=failed.event_id, organization=failed.organization, mode=failed.mode)
    assert key.open_response(failed.response, about, attempt_name(failed.endpoint_id, failed.round, failed.attempt)) == b"try later"
