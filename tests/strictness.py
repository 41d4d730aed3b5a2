"""What must hold of the strict reader and of the payload's slice, whatever the bytes: for Hypothesis and for the fuzzer."""

from __future__ import annotations

import json
from typing import Any

from ingest import accept, cloudevents
from schemas import strict
from schemas.keys import fingerprint
from schemas.problems import ProblemError
from tests.plain_json import Malformed, TooDeep, defects

_WHITESPACE = b" \t\r\n"
_BYTES_MAX = 1 << 22


def verdict(text: bytes) -> str | None:
    """The reason for which the reader refuses a text, None if it takes it."""
    try:
        strict.check(text)
    except strict.NotStrict as error:
        assert error.detail
        return error.reason
    return None


def judge(text: bytes) -> str | None:
    """The reader's verdict, held against the plain reference, the standard library and what becomes of the text as a payload.

    Raises `AssertionError` where they differ.
    """
    reason = verdict(text)
    try:
        expected = defects(text)
    except Malformed:
        assert reason is not None, "taken, and no JSON"
    except TooDeep:
        assert reason is not None, "taken, and too deep"
    else:
        assert (reason is None) == (not expected), f"{reason} where the reference finds {expected or 'nothing'}"
        assert reason is None or reason in expected, f"{reason} where the reference finds {expected}"
    if reason is None:
        _means_one_thing(text)
    if reason != "malformed":  # what is no JSON alone may be part of some around it
        _is_kept_as_sent(text, reason)
    return reason


def _means_one_thing(text: bytes) -> None:
    """The standard library takes it in strict settings, and so as it does without them."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def constant(name: str) -> None:
        raise AssertionError(name)

    value = json.loads(text.decode("utf-8", "strict"), object_pairs_hook=members, parse_constant=constant)
    assert json.dumps(value) == json.dumps(json.loads(text))
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _is_kept_as_sent(text: bytes, reason: str | None) -> None:
    """As the payload of an event, native or structured, it is the same bytes; or the event is refused as the text was."""
    payload = text.strip(_WHITESPACE)
    for read in (_native, _structured):
        try:
            draft = read(text)
        except ProblemError as error:
            # The members of the event itself count too; and a text that is not looked at to its end may be no JSON further on.
            assert error.members["reason"] in {reason, "too_many_members"} or reason is not None, f"{read.__name__}: {error}"
            continue
        assert reason is None, f"{read.__name__} takes what is refused alone"
        assert draft.payload == payload
        assert draft.fingerprint == fingerprint("a", None, payload)


def _native(text: bytes) -> accept.Draft:
    return accept.native(b'{"type":"a","payload":' + text + b"}", None, payload_bytes_max=_BYTES_MAX)


def _structured(text: bytes) -> accept.Draft:
    body = b'{"data":' + text + b',"specversion":"1.0","id":"1","source":"s","type":"a"}'
    return cloudevents.structured(body, payload_bytes_max=_BYTES_MAX)
