"""The command for the day on which delivery's offsets are lost."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from confluent_kafka import KafkaError, KafkaException

from access.organizations import NotPossible
from runtime import lost_offsets
from runtime.settings import Settings
from schemas.topics import DELIVERY_GROUP, declared
from triggers.commands.output import Json, explained, show


class Place(StrEnum):
    BEGINNING = "beginning"
    END = "end"


def recover(
    go_on: Annotated[
        Place,
        typer.Option(
            help="beginning: read everything again; what the journal has is not sent again. end: what was not delivered yet never is."
        ),
    ],
    json: Json = False,
) -> None:
    """Decide where delivery goes on in partitions whose committed offset is lost or gone. Stop all delivery workers first."""
    with explained():
        settings = Settings()
        topics = [topic.name for topic in declared(settings.delivery.delays_s) if DELIVERY_GROUP in topic.groups]
        try:
            recovered = lost_offsets.recover(settings.kafka, DELIVERY_GROUP, topics, "beginning" if go_on is Place.BEGINNING else "end")
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID:
                raise NotPossible(
                    "delivery workers are still in the group: stop all of them, wait for TRIGGERS_KAFKA__SESSION_TIMEOUT_S, and try again"
                ) from None
            raise
        show([one._asdict() for one in recovered], json=json)


def register(app: typer.Typer) -> None:
    app.command("lost-offsets")(recover)
