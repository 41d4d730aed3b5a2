"""`triggers endpoint …` on a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from access.endpoint_secrets import secret_text
from runtime import migrations
from runtime.postgres import connect
from runtime.settings import Settings
from tests.contract.databases import empty_database
from tests.contract.test_command_line import Command, answer, complaint
from triggers.cli import app

URL = "https://x.example/"


@pytest.fixture(scope="module")
def dsn(settings: Settings) -> Iterator[str]:
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        yield made.dsn.get_secret_value()


@pytest.fixture
def run(environment: dict[str, str], dsn: str) -> Command:
    def run(*arguments: str, **more: str) -> Result:
        stdin = more.pop("stdin", None)
        return CliRunner().invoke(app, arguments, input=stdin, env={**environment, "TRIGGERS_POSTGRES__DSN": dsn, **more})

    return run


@pytest.fixture
def control(settings: Settings, dsn: str) -> Iterator[Connection[Any]]:
    with connect(settings.postgres.model_copy(update={"dsn": SecretStr(dsn)}), application="test") as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def organization(run: Command) -> str:
    return str(answer(run("org", "create", "Acme", "--json"))["id"])


@pytest.fixture
def endpoint(run: Command, organization: str) -> str:
    return str(answer(run("endpoint", "add", organization, URL, "--header", "X-Tenant: 17", "--json"))["id"])


def test_an_endpoint_is_added_with_all_that_can_be_chosen(run: Command, organization: str) -> None:
    made = answer(
        run(
            "endpoint", "add", organization, URL, "--mode", "test", "--description", "Orders", "--event-type", "order.*",
            "--header", "Authorization: Bearer s3cr3t", "--rate", "60", "--concurrency", "2", "--schedule", "5s,1m,1h", "--deadline", "7.5",
            "--legacy-signature", "X-Sig=t-v1-hex", "--json",
        )
    )  # fmt: skip
    assert "s3cr3t" not in str(made)
    shown = answer(run("endpoint", "show", made["id"], "--json"))
    wanted = {
        "organization": organization, "mode": "test", "url": URL, "description": "Orders", "event_types": ["order.*"],
        "headers": {"Authorization": "Bearer s3cr3t"}, "rate_per_minute": 60, "concurrency": 2, "schedule": "custom",
        "schedule_s": [5, 60, 3_600], "deadline_s": 7.5, "legacy_signature": {"header": "X-Sig", "scheme": "t-v1-hex"}, "enabled": True,
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted
    assert [one["number"] for one in shown["secrets"]] == [1]
    assert "secret" not in shown
    assert "until rotated" in run("endpoint", "show", made["id"]).stdout


def test_an_endpoint_with_an_order_is_added_and_may_block_or_not_at_any_time(run: Command, organization: str) -> None:
    made = answer(run("endpoint", "add", organization, URL, "--fifo", "--fifo-block", "--json"))
    assert (made["fifo"], made["fifo_block"], made["blocked_event_id"]) == (True, True, None)
    assert answer(run("endpoint", "update", made["id"], "--no-fifo-block", "--json"))["fifo_block"] is False
    assert "make another one" in complaint(run("endpoint", "update", made["id"], "--reset", "fifo"))


def test_an_update_changes_what_is_named_and_resets_what_is_to_be_reset(run: Command, endpoint: str) -> None:
    changed = answer(
        run(
            "endpoint", "update", endpoint, "--url", "https://y.example/", "--header", "X-Shop: 1", "--no-header", "X-Tenant",
            "--schedule", "standard", "--rate", "5", "--json",
        )
    )  # fmt: skip
    assert (changed["url"], changed["header_names"], changed["schedule"]) == ("https://y.example/", ["X-Shop"], "standard")
    changed = answer(
        run("endpoint", "update", endpoint, "--reset", "headers", "--reset", "schedule", "--reset", "rate_per_minute", "--json")
    )
    assert (changed["header_names"], changed["schedule"], changed["rate_per_minute"]) == ([], "default", None)
    assert changed["url"] == "https://y.example/"
    assert "say what is to change" in complaint(run("endpoint", "update", endpoint))
    assert "rate_per_minute cannot be both" in complaint(run("endpoint", "update", endpoint, "--rate", "5", "--reset", "rate_per_minute"))


def test_an_endpoint_is_disabled_enabled_deleted_and_the_operator_named(run: Command, endpoint: str, control: Connection[Any]) -> None:
    off = answer(run("endpoint", "disable", endpoint, "--json"))
    assert (off["enabled"], off["disabled_reason"]) == (False, "operator")
    assert answer(run("endpoint", "enable", endpoint, "--json"))["enabled"] is True
    assert answer(run("endpoint", "delete", endpoint, "--json")) == {"id": endpoint, "deleted": "now"}
    assert endpoint not in run("endpoint", "list").stdout
    for command in ("show", "update", "disable", "enable", "delete", "rotate-secret"):
        more = ("--description", "x") if command == "update" else ()
        assert complaint(run("endpoint", command, endpoint, *more)) == "there is no such endpoint: list them to see which there are"
    rows = control.execute("SELECT actor, action FROM control.audit_log WHERE target = %s ORDER BY id", (endpoint,)).fetchall()
    assert [action for _, action in rows] == [f"endpoint.{what}" for what in ("created", "disabled", "enabled", "deleted")]
    assert all(actor.startswith("cli:") for actor, _ in rows)


def test_lists_are_of_one_organization_or_of_all(run: Command, organization: str, endpoint: str) -> None:
    other = answer(run("org", "create", "Other", "--json"))["id"]
    theirs = answer(run("endpoint", "add", other, URL, "--json"))["id"]
    assert [row["id"] for row in answer(run("endpoint", "list", "--organization", organization, "--json"))] == [endpoint]
    assert {endpoint, theirs} <= {row["id"] for row in answer(run("endpoint", "list", "--json"))}
    assert run("endpoint", "list", "--organization", other).stdout.splitlines()[0].split()[:3] == ["id", "organization", "mode"]


def test_a_secret_is_rotated_and_may_be_brought_along_in_a_file(
    run: Command, organization: str, endpoint: str, tmp_path: Path, control: Connection[Any]
) -> None:
    rotated = answer(run("endpoint", "rotate-secret", endpoint, "--overlap", "2h", "--json"))
    assert rotated["secret"].startswith("whsec_")
    assert [one["number"] for one in answer(run("endpoint", "show", endpoint, "--json"))["secrets"]] == [2, 1]
    mine = secret_text(b"mine" * 8)
    file = tmp_path / "secret"
    file.write_text(mine + "\n")
    assert answer(run("endpoint", "rotate-secret", endpoint, "--overlap", "0s", "--secret-file", str(file), "--json"))["secret"] == mine
    assert answer(run("endpoint", "add", organization, URL, "--secret-file", "-", "--json", stdin=mine))["secret"] == mine
    file.write_text("whsec_hunter2")
    assert "hunter2" not in complaint(run("endpoint", "rotate-secret", endpoint, "--secret-file", str(file)))
    assert "cannot be read" in complaint(run("endpoint", "rotate-secret", endpoint, "--secret-file", str(tmp_path)))
    assert mine not in str(control.execute("SELECT detail FROM control.audit_log").fetchall())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--header", "hunter2"], "a header is 'Name: value'"),
        (["--header", "Host: hunter2"], "set by the sender"),
        (["--legacy-signature", "X-Sig"], "X-Hub-Signature-256=sha256-hex-body"),
        (["--legacy-signature", "X-Sig=md5"], "scheme"),
        (["--schedule", "soon"], "a duration must be"),
        (["--schedule", "0s"], "schedule_s"),
        (["--deadline", "100"], "deadline_s"),
        (["--concurrency", "65"], "concurrency"),
        (["--fifo", "--concurrency", "2"], "one event at a time"),
        (["--fifo-block"], "belongs to fifo"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_what_to_do(run: Command, organization: str, arguments: list[str], says: str) -> None:
    said = complaint(run("endpoint", "add", organization, URL, *arguments))
    assert says in said
    assert "hunter2" not in said


def test_one_more_than_there_may_be_is_refused(run: Command, organization: str, endpoint: str) -> None:
    said = complaint(run("endpoint", "add", organization, URL, TRIGGERS_ACCESS__ENDPOINTS_MAX="1"))
    assert said == "there may be 1 endpoints in an organization and mode: delete one first"
