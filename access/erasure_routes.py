"""Erasure over HTTP, for operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from access import erasure
from access.bodies import decoded
from access.openapi import INTEGER, Responses, answered, problem_responses, record
from access.operator_desk import OperatorDesk
from access.operator_docs import taken
from access.operator_routes import BODY_PROBLEMS, Body, OrganizationPath, actor_of, guarded, json_answer
from access.secrets import Keyring, KeyringError
from runtime.clock import Clock
from schemas import ids, problems
from schemas.events import SUBJECT_CHARS_MAX
from schemas.lifecycle import Erased
from schemas.problems import ProblemError


class NewErasure(msgspec.Struct, forbid_unknown_fields=True):
    """Of one subject, or with null of the whole organization: it has to be said which."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=SUBJECT_CHARS_MAX)] | None
    dry_run: bool = False


_ANSWER: Final[Responses] = answered(
    200,
    "What was destroyed, or would be.",
    record(
        "Erasure",
        organization={"type": "string", "pattern": ids.ORGANIZATION_ID_PATTERN},
        what={"type": "string", "enum": ["subject", "organization"]},
        data_keys=INTEGER,
        erased={"type": "boolean", "description": "false: it was a dry run, or nothing of it is encrypted."},
        effective={"type": ["string", "null"], "enum": ["now", "within 5 s", None]},
    ),
    of_a_subject={
        "organization": "org_01a20b40-1000-7000-8000-000000000001", "what": "subject", "data_keys": 1, "erased": True, "effective": "now",
    },
)  # fmt: skip


def router(desk: OperatorDesk, clock: Clock, keyring: Keyring, tell_log: Callable[[Erased], object]) -> APIRouter:
    """`tell_log`: see `access.erasure.erase`; it raises `RuntimeError` where the log did not confirm."""
    routes = guarded(desk)

    @routes.post(
        "/organizations/{organization}/erasures",
        summary="Make a subject's or an organization's encrypted events unreadable for ever",
        operation_id="erase",
        responses={**_ANSWER, **problem_responses(problems.NOT_FOUND, problems.UNKNOWN_OUTCOME, *BODY_PROBLEMS)},
        openapi_extra=taken(NewErasure, a_dry_run={"subject": "jane@example.com", "dry_run": True}),
    )
    def erase(request: Request, organization: OrganizationPath, body: Body) -> Response:
        new = decoded(body, NewErasure)
        with desk.control() as connection:
            try:
                wanted = erasure.look(connection, keyring, organization, new.subject)
                told: dict[str, Any] = {
                    "organization": wanted.organization,
                    "what": "organization" if new.subject is None else "subject",
                    "data_keys": len(wanted.keys),
                }
                if new.dry_run or not wanted.keys:
                    return json_answer({**told, "erased": False, "effective": None})
                version = erasure.erase(connection, clock, wanted, tell_log, actor=actor_of(request))
            except KeyringError as error:
                raise ProblemError(problems.UNAVAILABLE, f"{error}.", headers={"Retry-After": "2"}) from error
            except RuntimeError as error:
                raise ProblemError(
                    problems.UNKNOWN_OUTCOME, "The log did not confirm the erasure, and no key was deleted. Ask for it again.",
                    headers={"Retry-After": "2"}, members={"outcome": "unknown"},
                ) from error  # fmt: skip
        return json_answer({**told, "erased": True, "effective": desk.tell(version)})

    return routes
