"""`triggers topics`: make what is missing; `plan` shows what differs from the declaration, `apply` changes what may be changed.

`grow` is a module of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from runtime import topic_plan
from runtime import topics as admin_step
from runtime.settings import Settings
from runtime.topic_plan import Difference
from triggers.commands.output import Json, explained, fail, show, show_one

topics = typer.Typer(invoke_without_command=True, help="Topics: without a further command, create missing ones and refuse what differs.")


@topics.callback()
def ensure(context: typer.Context, json: Json = False) -> None:
    """Create missing topics and refuse what differs from their declaration. `plan` and `apply` show and change what differs."""
    if context.invoked_subcommand is not None:
        return
    with explained():
        settings = Settings()
        show_one({"created": admin_step.ensure(settings.kafka, settings.delivery.delays_s)}, json=json)


@topics.command("plan")
def plan(json: Json = False) -> None:
    """Show every difference between the topics and their declaration. Changes nothing."""
    with explained():
        settings, differences = _compare()
        show(map(row, differences), json=json)
        if not json:
            client = admin_step.admin(settings.kafka)
            number = admin_step.generation(client, settings.operating.check_timeout_s)
            print(f"generation {number}")


@topics.command("apply")
def apply(
    dangerous: Annotated[bool, typer.Option("--dangerous", help="Also make changes that delete records or promise less.")] = False,
    json: Json = False,
) -> None:
    """Show what differs, then change what may be changed. Never the number of partitions, nor of replicas.

    Exit status 1 if a difference is left.
    """
    with explained():
        settings, differences = _compare()
        if not json:
            show(map(row, differences), json=False)
        done = topic_plan.apply(settings.kafka, settings.delivery.delays_s, differences, dangerous=dangerous)
        left = [one for one in differences if one not in done]
        if json:
            show_one({"done": [row(one) for one in done], "left": [row(one) for one in left]}, json=True)
        else:
            print(f"{len(done)} done, {len(left)} left")
        if left:
            print(*(_left(one) for one in left), sep="\n", file=sys.stderr)
            raise fail("not everything is as declared")


def _compare() -> tuple[Settings, Sequence[Difference]]:
    settings = Settings()
    return settings, topic_plan.compare(settings.kafka, settings.delivery.delays_s, timeout_s=settings.operating.check_timeout_s)


def row(one: Difference) -> dict[str, Any]:
    return {"topic": one.topic, "setting": one.setting, "is": one.found, "declared": one.wanted, "change": one.kind, "why": one.why or None}


def _left(one: Difference) -> str:
    how = "with --dangerous" if one.kind == "dangerous" else "not from here"
    return f"{one.topic}: {one.setting} is {one.found}, declared is {one.wanted}: {how}: {one.why}"


def register(app: typer.Typer) -> None:
    app.add_typer(topics, name="topics")
