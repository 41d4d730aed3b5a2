"""What schemathesis cannot read in the contract, told to it. Loaded by the child process of `tests.flow.test_schemathesis`.

A valid request is more than a valid body beside valid headers: which format it is in decides which headers it may have. `before_call` makes
generated requests such as an honest caller sends. `filter_failure` takes back what depends on requests before (a key that was used) or is
answered inside of a 200 (the items of a batch), and looks there itself.
"""

from __future__ import annotations

import json
from typing import Any, Final

import schemathesis
from schemathesis.core.transport import Response

from tests.contract_document import resolved, validator

NATIVE: Final = "application/json"
LINES: Final = "application/x-ndjson"
BINARY: Final = "application/octet-stream"
_ATTRIBUTES: Final = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/tests", "ce-type": "a.b"}
#: Refusals of well-formed requests, for what was there before: (operation, problem).
_STATEFUL: Final = {("post_event", "idempotency-key-reused"), ("read_inbox", "invalid-cursor")}


@schemathesis.serializer(LINES)
def lines(context: Any, value: Any) -> bytes:
    """Text as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Requests of the hot path whose parts fit each other."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    operation = case.operation.definition.raw.get("operationId")
    if operation not in ("post_event", "post_batch"):
        return
    headers = case.headers
    headers.pop("Content-Encoding", None)  # the body is sent as it is
    if operation == "post_event":
        attributes = {name for name in headers if name.lower().startswith("ce-")}
        if case.media_type == BINARY:
            headers.update({name: value for name, value in _ATTRIBUTES.items() if name not in attributes})
        else:
            for name in attributes:
                headers.pop(name)
        keyed = isinstance(case.body, dict) and case.body.get("idempotency_key") is not None
        if case.media_type != NATIVE or keyed:
            headers.pop("Idempotency-Key", None)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Response) -> bool:
    """Whether it is one."""
    operation = case.operation.definition.raw.get("operationId")
    kind = type(failure).__name__
    if kind == "RejectedPositiveData":
        return (operation, json.loads(response.content)["type"].rpartition(":")[2]) not in _STATEFUL
    if kind == "AcceptedNegativeData" and operation == "post_batch":
        return not _each_item_is_judged(case, json.loads(response.content))
    return True


def _each_item_is_judged(case: Any, answer: dict[str, Any]) -> bool:
    """One result for each item, and none of those that the contract does not allow was appended."""
    schema = resolved(resolved(case.operation.definition.raw)["requestBody"])["content"][case.media_type]["schema"]
    items = case.body if isinstance(case.body, list) else []
    one = validator(schema["items"])
    results = answer["results"]
    return len(results) == len(items) and all(
        one.is_valid(item) or result["status"] >= 400 for item, result in zip(items, results, strict=True)
    )
