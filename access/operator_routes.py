"""The operator API: organizations, keys and the audit log over HTTP, for operators' tokens only.

Routes are plain functions, which FastAPI runs in threads: they share the synchronous functions of the control plane with the command line.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from access import api_keys, audit, keys, operator_docs, organizations
from access.bodies import decoded, read_json
from access.openapi import problem_responses
from access.operator_bodies import NewKey, NewOrganization, OrganizationChange, Rotation
from access.operator_desk import OperatorDesk
from access.times import iso
from runtime.clock import Clock
from schemas import ids, problems

Body = Annotated[bytes, Depends(read_json)]
OrganizationPath = Annotated[str, Path(pattern=ids.ORGANIZATION_ID_PATTERN, description="`org_…`")]
KeyPath = Annotated[str, Path(pattern=ids.API_KEY_ID_PATTERN, description="`key_…`, the id of the key and not the key.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Entries of a page.")]
After = Annotated[
    str,
    Query(max_length=64, description="A `next_after`: the last id of the page before.", json_schema_extra={"pattern": "^[ -~]*$"}),
]

_ROW_ID_MAX: Final = 2**63 - 1
_ADMISSION: Final = (
    problems.MISSING_OPERATOR_TOKEN,
    problems.INVALID_OPERATOR_TOKEN,
    problems.INVALID_HEADER,
    problems.FORBIDDEN,
    problems.RATE_LIMITED,
    problems.UNAVAILABLE,
)
BODY_PROBLEMS: Final = (
    problems.MALFORMED_JSON,
    problems.INVALID_REQUEST,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.BODY_TOO_LARGE,
    problems.REQUEST_TIMEOUT,
)
_BEARER: Final = HTTPBearer(auto_error=False, scheme_name="operator", description="`zap_op_…`, from `triggers operator create`.")


def guarded(desk: OperatorDesk) -> APIRouter:
    """A router for routes of operators. None is reached without a valid token: it is asked for before anything else is looked at."""

    def admit(request: Request) -> None:
        request.state.actor = desk.admit(request).actor

    return APIRouter(
        prefix="/operator", tags=["operators"], dependencies=[Depends(_BEARER), Depends(admit)], responses=problem_responses(*_ADMISSION)
    )


def router(desk: OperatorDesk, clock: Clock) -> APIRouter:
    """The routes."""
    routes = guarded(desk)
    _organizations(routes, desk, clock)
    _keys_of_organizations(routes, desk, clock)
    _keys(routes, desk, clock)
    _audit(routes, desk)
    return routes


def _organizations(routes: APIRouter, desk: OperatorDesk, clock: Clock) -> None:
    @routes.post(
        "/organizations",
        summary="Create an organization",
        status_code=201,
        responses={**operator_docs.ORGANIZATION_MADE, **problem_responses(*BODY_PROBLEMS)},
        openapi_extra=operator_docs.TAKES_ORGANIZATION,
    )
    def create_organization(request: Request, body: Body) -> Response:
        new = decoded(body, NewOrganization)
        organization = ids.organization_id(clock.now_ms(), os.urandom(ids.RANDOM_BYTES))
        with desk.control() as connection:
            made = organizations.create(connection, organization, **msgspec.structs.asdict(new), actor=actor_of(request))
        return json_answer(made._asdict(), 201, location=f"/operator/organizations/{made.id}")

    @routes.get(
        "/organizations",
        summary="List organizations, oldest first",
        responses=operator_docs.ORGANIZATIONS,
    )
    def list_organizations(limit: Limit = 100, after: After = "") -> Response:
        with desk.control() as connection:
            found = organizations.page(connection, after=_safe(after), limit=limit + 1)
        return json_answer(_page("organizations", [made._asdict() for made in found], limit))

    @routes.get(
        "/organizations/{organization}",
        summary="One organization",
        responses={**operator_docs.ORGANIZATION, **problem_responses(problems.NOT_FOUND)},
    )
    def get_organization(organization: OrganizationPath) -> Response:
        with desk.control() as connection:
            return json_answer(organizations.get(connection, organization)._asdict())

    @routes.patch(
        "/organizations/{organization}",
        summary="Change its name, plan or rate limit, suspend or resume it",
        responses={
            **operator_docs.ORGANIZATION_CHANGED,
            **problem_responses(problems.NOT_FOUND, *BODY_PROBLEMS),
        },
        openapi_extra=operator_docs.TAKES_CHANGE,
    )
    def change_organization(request: Request, organization: OrganizationPath, body: Body) -> Response:
        change = decoded(body, OrganizationChange).change()
        with desk.control() as connection:
            made, version = organizations.update(connection, organization, change, actor=actor_of(request))
        return json_answer({**made._asdict(), "effective": desk.tell(version)})


def _keys_of_organizations(routes: APIRouter, desk: OperatorDesk, clock: Clock) -> None:
    @routes.post(
        "/organizations/{organization}/keys",
        summary="Create an API key; it is shown this once",
        status_code=201,
        responses={
            **operator_docs.KEY_MADE,
            **problem_responses(problems.NOT_FOUND, *BODY_PROBLEMS),
        },
        openapi_extra=operator_docs.TAKES_KEY,
    )
    def create_key(request: Request, organization: OrganizationPath, body: Body) -> Response:
        new, now_ms = decoded(body, NewKey), clock.now_ms()
        with desk.control() as connection:
            made, text = api_keys.create(
                connection,
                ids.api_key_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
                organization=organization,
                mode=new.mode,
                name=new.name,
                scopes=new.scopes,
                random=os.urandom(keys.RANDOM_BYTES),
                expires_at_ms=new.expires_at_ms(now_ms),
                actor=actor_of(request),
            )
        return json_answer({**made.shown(now_ms), "key": text}, 201, location=f"/operator/keys/{made.id}")

    @routes.get(
        "/organizations/{organization}/keys",
        summary="List an organization's keys, oldest first",
        responses={**operator_docs.KEYS, **problem_responses(problems.NOT_FOUND)},
    )
    def list_keys(organization: OrganizationPath, limit: Limit = 100, after: After = "") -> Response:
        with desk.control() as connection:
            organizations.get(connection, organization)
            found = api_keys.page(connection, organization, after=_safe(after), limit=limit + 1)
        return json_answer(_page("keys", [key.shown(clock.now_ms()) for key in found], limit))


def _keys(routes: APIRouter, desk: OperatorDesk, clock: Clock) -> None:
    @routes.get(
        "/keys/{key}",
        summary="One API key",
        responses={**operator_docs.KEY, **problem_responses(problems.NOT_FOUND)},
    )
    def get_key(key: KeyPath) -> Response:
        with desk.control() as connection:
            return json_answer(api_keys.get(connection, key).shown(clock.now_ms()))

    @routes.delete(
        "/keys/{key}",
        summary="Revoke an API key",
        responses={
            **operator_docs.KEY_REVOKED,
            **problem_responses(problems.NOT_FOUND),
        },
    )
    def revoke_key(request: Request, key: KeyPath) -> Response:
        with desk.control() as connection:
            version = api_keys.revoke(connection, key, actor=actor_of(request))
            revoked = api_keys.get(connection, key)
        return json_answer({**revoked.shown(clock.now_ms()), "effective": desk.tell(version)})

    @routes.post(
        "/keys/{key}/rotate",
        summary="A new key in place of an old one, which goes on working for a while",
        status_code=201,
        responses={
            **operator_docs.KEY_ROTATED,
            **problem_responses(problems.NOT_FOUND, problems.NOT_POSSIBLE, *BODY_PROBLEMS),
        },
        openapi_extra=operator_docs.TAKES_ROTATION,
    )
    def rotate_key(request: Request, key: KeyPath, body: Body) -> Response:
        rotation, now_ms = decoded(body, Rotation), clock.now_ms()
        with desk.control() as connection:
            done = api_keys.rotate(
                connection,
                key,
                ids.api_key_id(now_ms, os.urandom(ids.RANDOM_BYTES)),
                overlap_s=rotation.overlap_s,
                random=os.urandom(keys.RANDOM_BYTES),
                actor=actor_of(request),
            )
        document = {
            "new": {**done.new.shown(now_ms), "key": done.text},
            "old": done.old.shown(now_ms),
            "effective": desk.tell(done.version),
        }
        return json_answer(document, 201, location=f"/operator/keys/{done.new.id}")


def _audit(routes: APIRouter, desk: OperatorDesk) -> None:
    @routes.get(
        "/audit",
        summary="Who changed what, newest first",
        responses=operator_docs.AUDIT,
    )
    def read_audit(
        organization: Annotated[str | None, Query(pattern=ids.ORGANIZATION_ID_PATTERN, description="Only what concerns it.")] = None,
        before: Annotated[int, Query(ge=1, le=_ROW_ID_MAX, description="A `next_before`: the last id of the page before.")] = _ROW_ID_MAX,
        limit: Limit = 100,
    ) -> Response:
        with desk.control() as connection:
            found = audit.page(connection, organization, before=before, limit=limit + 1)
        entries = [{"id": entry.id, "at": iso(entry.at_ms), **dict(list(entry._asdict().items())[2:])} for entry in found[:limit]]
        return json_answer({"entries": entries, "next_before": entries[-1]["id"] if len(found) > limit else None})


def actor_of(request: Request) -> str:
    """Who is named in the audit log."""
    actor: str = request.state.actor
    return actor


def _safe(after: str) -> str:
    """Raises the problem `invalid-parameter` for what PostgreSQL cannot hold."""
    if not after.isascii() or not (after.isprintable()):
        raise problems.ProblemError(problems.INVALID_PARAMETER, "after: Send the `next_after` of a page.")
    return after


def _page(name: str, rows: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """`rows` holds one more than `limit` if there is another page."""
    return {name: rows[:limit], "next_after": rows[limit - 1]["id"] if len(rows) > limit else None}


def json_answer(document: dict[str, Any], status: int = 200, *, location: str | None = None) -> Response:
    headers = {"Cache-Control": "no-store"} if location is None else {"Cache-Control": "no-store", "Location": location}
    return Response(msgspec.json.encode(document), status, headers, "application/json")
