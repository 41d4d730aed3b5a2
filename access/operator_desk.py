"""Where operators are let in and what they ask for is carried out: the token, the connection, and telling the caches of keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import Connection
from starlette.requests import Request

from access import epoch, keys, operators
from access.failures import FailedAttempts
from access.operators import Operator
from access.organizations import NotPossible, NotThere
from runtime.clock import Clock
from runtime.metrics import KEYS_REFUSED
from runtime.postgres import ThreadPool
from runtime.settings import RedisSettings
from runtime.telemetry import log
from schemas.problems import (
    FORBIDDEN,
    INVALID_HEADER,
    INVALID_OPERATOR_TOKEN,
    INVALID_REQUEST,
    MISSING_OPERATOR_TOKEN,
    NOT_FOUND,
    NOT_POSSIBLE,
    UNAVAILABLE,
    ProblemError,
)

_SCHEME: Final = "bearer "
#: RFC 6750 section 3: without a token only the scheme, with a bad one the error too.
_ASK: Final = {"WWW-Authenticate": 'Bearer realm="operator"'}
_ASK_AGAIN: Final = {"WWW-Authenticate": 'Bearer realm="operator", error="invalid_token"'}


class OperatorDesk:
    """One per process. It runs in threads: the control plane's functions are synchronous, for the command line too."""

    def __init__(self, pool: ThreadPool, redis: RedisSettings, clock: Clock, failed_per_minute_max: int) -> None:
        self._pool = pool
        self._redis = redis
        self._failed = FailedAttempts(clock, failed_per_minute_max)

    def admit(self, request: Request) -> Operator:
        """Who asks. Raises problems: 401 without a valid token, 403 for an organization's API key, 429 after too many bad tokens.

        Tokens are looked up each time and cached nowhere, so that revoking one is effective at once.
        """
        token = token_of(request.headers.raw)
        address = None if request.client is None else request.client.host
        self._failed.check(address)
        operator = None
        if operators.well_formed(token):
            with self.control() as connection:
                operator = operators.find(connection, token)
        if operator is None:
            self._failed.count(address)
            KEYS_REFUSED.labels("operator").inc()
            raise ProblemError(INVALID_OPERATOR_TOKEN, "The token is not valid. `triggers operator create` makes one.", headers=_ASK_AGAIN)
        return operator

    @contextmanager
    def control(self) -> Iterator[Connection[Any]]:
        """A connection to the control plane; what its functions raise becomes problems."""
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:  # also what the pool raises when it has no connection
            log.warning("operator.unavailable", error=str(error))
            detail = "The database of the control plane does not respond. See whether the change was made, then try again."
            raise ProblemError(UNAVAILABLE, detail, headers={"Retry-After": "2"}) from error
        except NotThere:
            detail = (
                "There is nothing under this id. The lists under /operator say what there is; an endpoint must be of the organization "
                "and mode."
            )
            raise ProblemError(NOT_FOUND, detail) from None
        except NotPossible as error:
            raise ProblemError(NOT_POSSIBLE, f"{_sentence(str(error))}.") from None
        except ValueError as error:
            raise ProblemError(INVALID_REQUEST, f"{_sentence(str(error))}.") from None

    def tell(self, version: int) -> str:
        """After a change that caches of keys must see: when every API process will have seen it."""
        return "now" if epoch.tell_caches(self._redis, version) else "within 5 s"


def token_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The presented token. Raises problems; an organization's key in either place is refused without being looked up."""
    found = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
    if len(found) > 1:
        raise ProblemError(INVALID_HEADER, "There is more than one Authorization header. Send exactly one.")
    scheme, token = (found[0][: len(_SCHEME)], found[0][len(_SCHEME) :].strip(" ")) if found else ("", "")
    if any(name == b"x-api-key" for name, _ in headers) or keys.well_formed(token):
        raise ProblemError(FORBIDDEN, "API keys belong to organizations. Operators send `Authorization: Bearer zap_op_…` and no API key.")
    if scheme.lower() != _SCHEME:
        raise ProblemError(MISSING_OPERATOR_TOKEN, "Send an operator's token: `Authorization: Bearer zap_op_…`.", headers=_ASK)
    return token


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
