"""Where integrators are let in to the control plane and what they ask for is carried out: keys, statements in threads, answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
import psycopg
import psycopg_pool
from fastapi import Request
from fastapi.responses import Response
from psycopg import Connection

from access.auth import Principal
from access.changes import Owner, TooManyChanges
from access.http import context_of
from access.organizations import NotPossible, NotThere
from access.schema_walk import SchemaError
from runtime.clock import Clock
from runtime.postgres import ThreadPool
from schemas import problems
from schemas.problems import ProblemError

#: `(request, scope)` → who is asking, or a problem.
Authenticate = Callable[[Request, str], Awaitable[Principal]]

#: Connections and threads of one desk.
CONCURRENCY: Final = 4

T = TypeVar("T")


async def any_of(authenticate: Authenticate, request: Request, scopes: Sequence[str]) -> Principal:
    """Who is asking, with any of `scopes`. Raises problems."""
    for scope in scopes:
        try:
            return await authenticate(request, scope)
        except ProblemError as error:
            if error.problem is not problems.FORBIDDEN:
                raise
    raise ProblemError(problems.FORBIDDEN, f"This API key has none of the scopes {', '.join(scopes)}. Use a key that has one.")


class IntegratorDesk:
    """What the routes of one kind of thing share. `what` names the things in problems; `manage` is the scope of those who change them."""

    def __init__(
        self, pool: ThreadPool, authenticate: Authenticate, clock: Clock, *, what: str, manage: str, readers: Sequence[str]
    ) -> None:
        self._pool = pool
        self._authenticate = authenticate
        self._clock = clock
        self._what = what
        self._manage = manage
        self._readers = tuple(readers)
        self._limiter = anyio.CapacityLimiter(CONCURRENCY)

    async def manager(self, request: Request) -> tuple[Owner, str]:
        """(whose things, who is named in the audit log). Raises problems."""
        principal = await self._authenticate(request, self._manage)
        return Owner(principal.organization, principal.mode), f"key:{principal.key_id}"

    async def reader(self, request: Request) -> tuple[Owner, bool]:
        """(whose things, whether the reader may also change them). Raises problems."""
        principal = await any_of(self._authenticate, request, self._readers)
        return Owner(principal.organization, principal.mode), self._manage in principal.scopes

    async def run(self, ask: Callable[[Connection[Any]], T], *, change: bool = False) -> T:
        """`ask` in a thread, with a connection; what the control plane raises becomes problems."""

        def in_thread() -> T:
            with self._pool.connection() as connection:
                return ask(connection)

        try:
            return await anyio.to_thread.run_sync(in_thread, limiter=self._limiter)
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout) as error:
            what = "It is not known whether the change was made: ask, then make it again." if change else "Try again in a moment."
            detail = f"The {self._what} cannot be reached right now. {what}"
            raise ProblemError(problems.UNAVAILABLE, detail, headers={"Retry-After": "2"}) from error
        except NotThere as error:
            raise ProblemError(problems.NOT_FOUND, f"{_sentence(error)}.") from None
        except NotPossible as error:
            raise ProblemError(problems.NOT_POSSIBLE, f"{_sentence(error)}.") from None
        except SchemaError as error:
            members = {"pointer": error.pointer, "field": "schema"}
            raise ProblemError(problems.INVALID_REQUEST, f"{_sentence(error)}.", members=members) from None
        except TooManyChanges as error:
            raise ProblemError(problems.RATE_LIMITED, f"{_sentence(error)}.", headers={"Retry-After": "60"}) from None
        except ValueError as error:
            raise ProblemError(problems.INVALID_REQUEST, f"{_sentence(error)}.") from None

    async def tell(self, tell: Callable[[T], object], what: T) -> None:
        """Something that need not succeed, in a thread."""
        await anyio.to_thread.run_sync(tell, what, limiter=self._limiter)

    def headers(self, request: Request) -> dict[str, str]:
        return {"X-Request-Id": context_of(request.headers.raw, self._clock).request_id, "Cache-Control": "no-store"}

    def answer(self, request: Request, status: int, document: dict[str, Any], more: dict[str, str] | None = None) -> Response:
        body = msgspec.json.encode(document)
        return Response(body, status, {**self.headers(request), **(more or {})}, media_type="application/json")


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
