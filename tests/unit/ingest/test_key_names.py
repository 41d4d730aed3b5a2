"""What identifies an event, from the request to Redis and the dedup table: equal for the same key however it is sent, else never."""

from __future__ import annotations

import json
from typing import NamedTuple

from hypothesis import assume, example, given
from hypothesis import strategies as st

from ingest import formats
from ingest.accept import Draft
from ingest.idempotency import redis_key
from schemas import ids
from schemas.events import IDEMPOTENCY_KEY_CHARS_MAX, Mode
from schemas.ids import OrganizationId
from schemas.keys import table_key

BYTES_MAX = 262_144
ORGANIZATIONS = [ids.organization_id(1, bytes(10)), ids.organization_id(1, bytes(9) + b"\x01"), ids.organization_id(2, bytes(10))]
#: Short and of few characters, among them every separator in use, so that parts run into each other if they can.
PARTS = st.text(alphabet="ab1:{}-kc/", min_size=1, max_size=6)
#: Whatever a key may hold.
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


class Identity(NamedTuple):
    """`key`: an idempotency key; or a CloudEvent's `source` and `id`."""

    organization: OrganizationId
    mode: Mode
    key: str | tuple[str, str]


KEYS = st.one_of(PARTS, ANY, st.tuples(PARTS, PARTS), st.tuples(ANY, ANY))
IDENTITIES = st.builds(Identity, st.sampled_from(ORGANIZATIONS), st.sampled_from(["live", "test"]), KEYS)


def native(key: str) -> Draft:
    body = json.dumps({"type": "a", "payload": 1, "idempotency_key": key}).encode()
    return formats.one(body, [], formats.Shape("native", "identity", None, None), payload_bytes_max=BYTES_MAX)


def structured(source: str, event: str) -> Draft:
    body = json.dumps({"specversion": "1.0", "type": "a", "source": source, "id": event, "data": 1}).encode()
    return formats.one(body, [], formats.Shape("structured", "identity", None, None), payload_bytes_max=BYTES_MAX)


def binary(source: str, event: str) -> Draft:
    def header(text: str) -> bytes:
        return "".join(f"%{byte:02X}" for byte in text.encode()).encode()

    headers = [(b"ce-specversion", b"1.0"), (b"ce-type", b"a"), (b"ce-source", header(source)), (b"ce-id", header(event))]
    return formats.one(b"1", headers, formats.Shape("binary", "identity", None, None), payload_bytes_max=BYTES_MAX)


def dedup_key(identity: Identity) -> str:
    draft = native(identity.key) if isinstance(identity.key, str) else structured(*identity.key)
    assert draft.dedup_key is not None
    return draft.dedup_key


@given(IDENTITIES, IDENTITIES)
@example(Identity(ORGANIZATIONS[0], "live", "c:1:ab"), Identity(ORGANIZATIONS[0], "live", ("a", "b")))
@example(Identity(ORGANIZATIONS[0], "live", ("ab", "1")), Identity(ORGANIZATIONS[0], "live", ("a", "b1")))
@example(Identity(ORGANIZATIONS[0], "live", ("1:a", "b")), Identity(ORGANIZATIONS[0], "live", ("1", ":ab")))
def test_two_events_share_a_name_only_if_organization_mode_and_key_are_the_same(one: Identity, other: Identity) -> None:
    same = one == other
    assert (table_key(one.organization, one.mode, dedup_key(one)) == table_key(other.organization, other.mode, dedup_key(other))) == same
    names = [redis_key(each.organization, each.mode, dedup_key(each)) for each in (one, other)]
    assert (names[0] == names[1]) == same
    for name, identity in zip(names, (one, other), strict=True):
        # Redis Cluster takes what stands between the first `{` and the next `}`: one organization, one shard.
        assert name.partition("{")[2].partition("}")[0] == identity.organization
        assert name.isascii()
        assert len(name) < 200


@given(st.one_of(PARTS, ANY), st.one_of(PARTS, ANY))
def test_a_key_is_the_same_whichever_way_it_is_sent(one: str, other: str) -> None:
    assert structured(one, other).dedup_key == binary(one, other).dedup_key
    assume(one.isascii() and len(one) <= IDEMPOTENCY_KEY_CHARS_MAX)
    quoted = one.replace("\\", "\\\\").replace('"', '\\"')
    sent = [(b"content-type", b"application/json"), (b"idempotency-key", f'"{quoted}"'.encode())]
    by_header = formats.one(b'{"type":"a","payload":1}', sent, formats.shape_of(sent), payload_bytes_max=BYTES_MAX)
    assert by_header.dedup_key == native(one).dedup_key
    assert by_header.fingerprint == native(one).fingerprint == structured(one, other).fingerprint
