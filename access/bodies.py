"""Small JSON bodies of routes: read with a limit in bytes and in time, decoded into a type, refused as problems."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from schemas import strict
from schemas.problems import BODY_TOO_LARGE, INVALID_REQUEST, MALFORMED_JSON, REQUEST_TIMEOUT, UNSUPPORTED_MEDIA_TYPE, ProblemError

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
BODY_BYTES_MAX: Final = 16_384
_BODY_TIMEOUT_S: Final = 10.0
#: Of a parser's words, which may name a member as long as the body.
_SAID_CHARS_MAX: Final = 200

T = TypeVar("T")


async def read_json(request: Request) -> bytes:
    """The body, for routes that run in threads and cannot read it themselves. Raises problems."""
    return await read_of_types(request, (JSON,), BODY_BYTES_MAX)


async def read_of_types(request: Request, types: Sequence[str], bytes_max: int) -> bytes:
    """A body of one of these media types. Raises problems."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() not in types:
        wanted = " or ".join(f"`Content-Type: {one}`" for one in types)
        raise ProblemError(UNSUPPORTED_MEDIA_TYPE, f"Send the body with {wanted}.")
    body = b""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > bytes_max:
                    detail = f"The body may have {bytes_max} bytes."
                    raise ProblemError(BODY_TOO_LARGE, detail, headers={"Connection": "close"})
    except (TimeoutError, ClientDisconnect):
        raise ProblemError(
            REQUEST_TIMEOUT, "The body did not arrive in time; nothing was changed.", headers={"Connection": "close"}
        ) from None
    return body


def decoded(body: bytes, kind: type[T]) -> T:
    """Raises the problems `invalid-request` and `malformed-json`. What parsers read in two ways is refused (`schemas.strict`)."""
    try:
        strict.check(body)
        return msgspec.json.decode(body, type=kind)
    except strict.NotStrict as error:
        problem = MALFORMED_JSON if error.reason == "malformed" else INVALID_REQUEST
        raise ProblemError(problem, f"The body cannot be read: it {error.detail}.") from None
    except msgspec.ValidationError as error:
        raise ProblemError(INVALID_REQUEST, f"{str(error)[:_SAID_CHARS_MAX]}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED_JSON, f"The body cannot be read: {error}.") from None
