"""The command line: `triggers <command>`. Each group of commands is a module of `triggers.commands`."""

from __future__ import annotations

import typer

from triggers.commands import (
    admin,
    audit,
    backup,
    dead,
    doctor,
    endpoints,
    erase,
    event_types,
    explain,
    grow,
    keyring,
    keys,
    lost_offsets,
    operators,
    organizations,
    rebuild,
    redeliveries,
    rejected,
    replays,
    retention,
    run,
    topics,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Event-sourced triggers on Kafka.")
admin.register(app)
run.register(app)
rebuild.register(app)
lost_offsets.register(app)
redeliveries.register(endpoints.endpoint)
explain.register(app)
doctor.register(app)
grow.register(topics.topics)
app.add_typer(topics.topics, name="topics")
backup.register(app)
app.add_typer(organizations.org, name="org")
app.add_typer(keys.key, name="key")
app.add_typer(operators.operator, name="operator")
app.add_typer(endpoints.endpoint, name="endpoint")
app.add_typer(replays.replay, name="replay")
app.add_typer(retention.retention, name="retention")
app.add_typer(keyring.keyring, name="keyring")
app.add_typer(erase.encryption, name="encryption")
app.add_typer(erase.erase, name="erase")
app.add_typer(audit.audit, name="audit")
app.add_typer(dead.dead, name="dead")
app.add_typer(rejected.rejected, name="rejected")
app.add_typer(event_types.event_type, name="event-type")
