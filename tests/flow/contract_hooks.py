"""What schemathesis cannot read in the contract, told to it. Loaded by the child process of `tests.flow.test_schemathesis`.

A valid request is more than a valid body beside valid headers: which format it is in decides which headers it may have. `before_call` makes
generated requests such as an honest caller sends. `filter_failure` takes back what no schema can say, or is answered inside of a 200 (the
items of a batch), and looks there itself.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response

from tests.contract_document import published, validator

NATIVE: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
LINES: Final = "application/x-ndjson"
BINARY: Final = "application/octet-stream"
STRUCTURED: Final = "application/cloudevents+json"
_NAMED: Final = ("create_organization", "change_organization", "create_key", "put_event_type", "create_endpoint", "change_endpoint")
#: What an endpoint can be told follows rules beyond a schema: of URLs, names of headers, which settings go together.
_ENDPOINTS: Final = ("create_endpoint", "change_endpoint", "rotate_endpoint_secret")
#: What may come without a body, and has no other part but its path.
_BODY_OPTIONAL: Final = ("test_endpoint", "rotate_endpoint_secret")
_ATTRIBUTES: Final = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/tests", "ce-type": "a.b"}


def as_lines(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.serializer(LINES)
def serialize_lines(context: Any, value: Any) -> bytes:
    """Text as it is."""
    return as_lines(value)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Requests whose parts fit each other and what was sent before."""
    operation = case.operation.definition.raw.get("operationId")
    if operation == "read_inbox" and case.query.get("wait"):
        case.query["wait"] = 0.1  # nobody has half a minute
    if case.meta is None:
        return
    header = case.meta.components.get(ParameterLocation.HEADER)
    if operation == "post_event" and (header is None or header.mode.is_positive):
        _in_one_format(case)
    if not case.meta.generation.mode.is_positive:
        return
    if operation == "read_inbox":
        case.query.pop("cursor", None)  # one that is made up is refused; that true ones are taken is for the tests of the inbox
    if operation in ("post_event", "post_batch"):
        case.headers.pop("Content-Encoding", None)  # the body is sent as it is
    if operation == "post_event":
        _under_a_new_key(case)
    case.body = _without_nul(case.body)  # JSON Schema has no word for strings, however deep, without one character
    if isinstance(case.body, dict):
        # JSON Schema calls 5.0 an integer (2020-12 Core, section 4.2.3); here integers are written without a fraction.
        case.body.update({name: int(value) for name, value in case.body.items() if isinstance(value, float) and value.is_integer()})
    if isinstance(case.body, dict) and operation in _ENDPOINTS:
        _an_endpoint(case.body)
    if isinstance(case.body, dict) and case.media_type in (NATIVE, MERGE_PATCH) and operation in _NAMED:
        for name in ("name", "description"):
            if isinstance(case.body.get(name), str):  # \p{M} and the like are made a little too wide
                case.body[name] = "".join(filter(str.isprintable, case.body[name])) or "a"
    if isinstance(case.body, dict) and case.body.get("rate_per_s") is not None:
        case.body["rate_per_s"] = min(case.body["rate_per_s"], 1_000)  # its highest is a setting
    if operation == "change_replay" and isinstance(case.body, dict) and not any(value is not None for value in case.body.values()):
        case.body["state"] = "paused"  # one of the two has to be there
    if operation in ("recover_endpoint", "start_replay") and isinstance(case.body, dict):
        # Two times that are made up are in the wrong order half of the time, and one before 1970 is before all that is left out.
        if case.body.get("since") is not None:
            case.body["since"] = "2026-01-01T00:00:00Z"
        case.body.pop("until", None)
    if operation == "create_key" and isinstance(case.body, dict) and case.body.get("expires_at"):
        case.body["expires_at"] = (datetime.now(UTC) + timedelta(days=30)).isoformat()


def _without_nul(value: Any) -> Any:
    """Names and texts of a JSON value, or a body of bytes as it is."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value


def _in_one_format(case: Any) -> None:
    attributes = {name for name in case.headers if name.lower().startswith("ce-")}
    if case.media_type == BINARY:
        case.headers.update({name: value for name, value in _ATTRIBUTES.items() if name not in attributes})
    else:
        for name in attributes:
            case.headers.pop(name)
    keyed = isinstance(case.body, dict) and case.body.get("idempotency_key") is not None
    if case.media_type != NATIVE or keyed:
        case.headers.pop("Idempotency-Key", None)


def _an_endpoint(body: dict[str, Any]) -> None:
    """Values that cannot be guessed, in place of what was: a URL, a secret, names of headers. Settings that go together."""
    if "url" in body:
        body["url"] = f"https://receiver.example/{uuid.uuid4().hex}"
    if body.get("secret") is not None:
        body["secret"] = f"whsec_{base64.b64encode(uuid.uuid4().bytes * 2).decode()}"
    if isinstance(body.get("headers"), dict):
        body["headers"] = {f"X-Header-{number}": "a" for number, _ in enumerate(body["headers"])}
    if isinstance(body.get("legacy_signature"), dict):
        body["legacy_signature"] = {"header": "X-Signature", "scheme": "t-v1-hex"}
    if body.get("schedule_s") is not None:
        body.pop("schedule", None)
    elif "schedule" in body:
        body.pop("schedule_s", None)
        body["schedule"] = "standard"
    for name in ("fifo", "fifo_block"):  # one is chosen once, the other belongs to it
        body.pop(name, None)


def _under_a_new_key(case: Any) -> None:
    """A key that was used names another event: `idempotency-key-reused`."""
    new = uuid.uuid4().hex
    holder, name = (case.body, "idempotency_key") if case.media_type == NATIVE else (case.body, "id")
    if case.media_type == BINARY:
        holder, name = case.headers, "ce-id"
    if isinstance(holder, MutableMapping) and holder.get(name) is not None:
        holder[name] = f"{new}{holder[name]}"[:200]
    if case.headers.get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = new


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Response) -> bool:
    """Whether it is one."""
    operation = case.operation.definition.raw.get("operationId")
    kind, answer = type(failure).__name__, json.loads(response.content)
    if kind == "AcceptedNegativeData" and operation == "post_batch":
        return not _each_item_is_judged(case, answer)
    if kind == "AcceptedNegativeData" and operation == "post_event" and case.media_type == STRUCTURED:
        # A structured event is its body: its ce- headers are not read (CloudEvents HTTP Protocol Binding 1.0, section 3.2).
        return not validator(published()["components"]["schemas"]["CloudEvent"]).is_valid(case.body)
    if kind == "AcceptedNegativeData" and case.body is NOT_SET and operation in _BODY_OPTIONAL:
        return False  # schemathesis calls what it left out a wrong body, also where it may be left out
    if kind == "UseAfterFree" and operation == "get_key":
        return bool(answer["state"] != "revoked")  # a key that is deleted is revoked, and shown so
    return True


def _each_item_is_judged(case: Any, answer: dict[str, Any]) -> bool:
    """One result for each item, and none of those that the contract does not allow was appended."""
    one = validator(published()["components"]["schemas"]["Event" if case.media_type in (NATIVE, LINES) else "CloudEvent"])
    items = [_read(line) for line in as_lines(case.body).split(b"\n") if line.strip()] if case.media_type == LINES else case.body
    results = answer["results"]
    return len(results) == len(items) and all(
        one.is_valid(item) or result["status"] >= 400 for item, result in zip(items, results, strict=True)
    )


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
