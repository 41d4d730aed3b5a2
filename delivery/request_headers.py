"""The headers of one attempt: the endpoint's own, then ours, which nothing can replace. Pure."""

from __future__ import annotations

from typing import Final

from delivery import sign
from delivery.endpoints import Endpoint
from runtime.kafka import Headers
from schemas.codec import HEADER_TRACEPARENT
from schemas.deliveries import Cause
from schemas.ids import EventId

#: Not on what is delivered by itself. `access.custom_headers` keeps the name from customers.
CAUSE_HEADER: Final = "X-Triggers-Delivery"


def headers(
    endpoint: Endpoint, event_id: EventId, at_s: int, content: bytes, carried: Headers, cause: Cause | None = None
) -> dict[str, str]:
    """`carried` came with the event; its trace goes on to the receiver. `cause`: of a delivery that was asked for.

    Raises `ValueError` for an endpoint without a secret.
    """
    ours = {
        "Content-Type": "application/json",
        **sign.headers(event_id, at_s, content, endpoint.secrets),
        **{name: (value or b"").decode("latin-1") for name, value in carried if name == HEADER_TRACEPARENT},
        **({} if cause is None else {CAUSE_HEADER: cause}),
    }
    if endpoint.legacy_signature is not None:
        name, scheme = endpoint.legacy_signature
        signature = sign.legacy(scheme, at_s, content, endpoint.secrets)
        if signature is not None and name.lower() not in _lower(ours):
            ours[name] = signature
    taken = _lower(ours)
    return {**{name: value for name, value in endpoint.headers.items() if name.lower() not in taken}, **ours}


def _lower(headers: dict[str, str]) -> set[str]:
    return {name.lower() for name in headers}
