"""Commands of the control plane: organizations, API keys, endpoints, master keys."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Final

import redis
import typer

from access import api_keys, audit, endpoints, keys, organizations
from access.auth import epoch_key, epoch_value
from access.secrets import Keyring
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas import ids
from schemas.events import Mode
from triggers.commands.output import Json, control_plane, show, show_one

org = typer.Typer(no_args_is_help=True, help="Organizations.")
key = typer.Typer(no_args_is_help=True, help="API keys.")
endpoint = typer.Typer(no_args_is_help=True, help="Webhook endpoints.")
keyring = typer.Typer(no_args_is_help=True, help="Master keys.")

_REDIS_TIMEOUT_S: Final = 2.0


class Modes(StrEnum):
    live = "live"
    test = "test"

    @property
    def mode(self) -> Mode:
        return "live" if self is Modes.live else "test"


class Plans(StrEnum):
    free = "free"
    starter = "starter"
    pro = "pro"
    enterprise = "enterprise"


@org.command("create")
def org_create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    plan: Annotated[Plans, typer.Option(help="Sets its rate limit.")] = Plans.free,
    rate_limit: Annotated[int | None, typer.Option(min=1, help="Events a minute, instead of the plan's.")] = None,
    json: Json = False,
) -> None:
    """Create an organization."""
    with control_plane() as (_, connection):
        made = organizations.create(
            connection,
            ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            name=name,
            plan=plan.value,
            rate_limit_per_minute=rate_limit,
            actor=audit.command_line_actor(),
        )
        show_one(made._asdict(), json=json)


@org.command("list")
def org_list(json: Json = False) -> None:
    """List organizations."""
    with control_plane() as (_, connection):
        show((row._asdict() for row in organizations.list_all(connection)), json=json)


@key.command("create")
def key_create(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    mode: Annotated[Modes, typer.Option(help="Live and test data never meet.")] = Modes.live,
    name: Annotated[str, typer.Option(help="What it is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="May be given several times; all scopes by default.")] = None,
    json: Json = False,
) -> None:
    """Create an API key. It is shown once and stored nowhere."""
    with control_plane() as (_, connection):
        row, text = api_keys.create(
            connection,
            ids.api_key_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            organization=organization,
            mode=mode.mode,
            name=name,
            scopes=scope or keys.SCOPES,
            random=os.urandom(keys.RANDOM_BYTES),
            actor=audit.command_line_actor(),
        )
        show_one({**row._asdict(), "key": text}, json=json)


@key.command("revoke")
def key_revoke(key_id: Annotated[str, typer.Argument(help="Its id: key_…")], json: Json = False) -> None:
    """Revoke an API key, at once for every API process that reaches Redis."""
    with control_plane() as (settings, connection):
        version = api_keys.revoke(connection, key_id, actor=audit.command_line_actor())
        told = _tell_caches(settings, version)
        when = "now" if told else "within 5 s (Redis was not told, so caches have to notice: is TRIGGERS_REDIS__URL right?)"
        show_one({"id": key_id, "revoked": when}, json=json)


def _tell_caches(settings: Settings, version: int) -> bool:
    """Change the epoch that cached keys are bound to. Without it each API process notices by itself within seconds."""
    try:
        client = redis.Redis.from_url(
            settings.redis.url.get_secret_value(), socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
        with client:
            client.set(epoch_key(), epoch_value(version, os.urandom(8)))
    except (redis.RedisError, ValueError):  # ValueError: a URL that cannot be read; the revocation itself is committed by now
        return False
    return True


@key.command("list")
def key_list(json: Json = False) -> None:
    """List API keys."""
    with control_plane() as (_, connection):
        show((row._asdict() for row in api_keys.list_all(connection)), json=json)


@endpoint.command("add")
def endpoint_add(
    organization: Annotated[str, typer.Argument(help="Its id: org_…")],
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    mode: Annotated[Modes, typer.Option(help="Live endpoints get live events only.")] = Modes.live,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    event_type: Annotated[list[str] | None, typer.Option(help="May be given several times; all types by default.")] = None,
    json: Json = False,
) -> None:
    """Register a webhook endpoint. Its signing secret is shown once."""
    with control_plane() as (settings, connection):
        made, secret = endpoints.add(
            connection,
            Keyring.from_setting(settings.master_keys.get_secret_value()),
            ids.endpoint_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)),
            organization=organization,
            mode=mode.mode,
            url=url,
            description=description,
            event_types=event_type,
            random=os.urandom(endpoints.SECRET_BYTES),
            allow_insecure=settings.delivery.allow_insecure_endpoints,
            actor=audit.command_line_actor(),
        )
        show_one({**made._asdict(), "secret": secret}, json=json)


@endpoint.command("list")
def endpoint_list(json: Json = False) -> None:
    """List webhook endpoints."""
    with control_plane() as (_, connection):
        show((row._asdict() for row in endpoints.list_all(connection)), json=json)


@keyring.command("rewrap")
def keyring_rewrap(json: Json = False) -> None:
    """Encrypt every secret under the newest master key, so that older ones can be dropped."""
    with control_plane() as (settings, connection):
        ring = Keyring.from_setting(settings.master_keys.get_secret_value())
        count = endpoints.rewrap(connection, ring, actor=audit.command_line_actor())
        show_one({"master_key": ring.newest, "rewrapped": count}, json=json)
