from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from access.epoch import epoch_key
from runtime import migrations
from runtime.postgres import connect
from runtime.settings import RedisSettings, Settings
from tests.contract.databases import empty_database
from triggers.cli import app
from triggers.system import argv

Command = Callable[..., Result]
UNREACHABLE = "127.0.0.1:1"
AWAY = f"postgresql://u:hunter2@{UNREACHABLE}/x"
IS_IT_RUNNING = "is it running, and is TRIGGERS_POSTGRES__DSN right?"


@pytest.fixture(scope="module")
def settings_here(settings: Settings) -> Iterator[Settings]:
    """With a control plane and an epoch of this module's own: its commands rewrap every secret there is, and revoke."""
    epochs = RedisSettings(url=SecretStr(settings.redis.url.get_secret_value().removesuffix("/0") + "/15"))
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        yield settings.model_copy(update={"postgres": made, "redis": epochs})


@pytest.fixture
def ours(environment: dict[str, str], settings_here: Settings) -> dict[str, str]:
    return {
        **environment,
        "TRIGGERS_POSTGRES__DSN": settings_here.postgres.dsn.get_secret_value(),
        "TRIGGERS_REDIS__URL": settings_here.redis.url.get_secret_value(),
    }


@pytest.fixture
def run(ours: dict[str, str]) -> Command:
    """A command in this process, with the environment of one of ours and `more` on top."""

    def run(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(app, arguments, env={**ours, **more})

    return run


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def complaint(result: Result) -> str:
    """What a failed command said: one line on standard error, nothing on standard output."""
    assert result.exit_code == 1, (result.stdout, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("triggers: ")
    return line.removeprefix("triggers: ")


@pytest.fixture
def organization(run: Command) -> str:
    return str(answer(run("org", "create", "Acme", "--plan", "pro", "--json"))["id"])


def test_scripts_get_json_for_every_step_from_an_organization_to_an_endpoint(run: Command, organization: str) -> None:
    made = {
        "id": organization,
        "name": "Acme",
        "plan": "pro",
        "rate_limit_per_minute": None,
        "suspended": False,
        "encryption": False,
        "retention_days": None,
    }
    assert made in answer(run("org", "list", "--json"))
    key = answer(run("key", "create", organization, "--mode", "test", "--scope", "inbox:read", "--json"))
    assert key["key"].startswith("zap_test_")
    assert (key["organization"], key["mode"], key["scopes"]) == (organization, "test", ["inbox:read"])
    listed = next(row for row in answer(run("key", "list", "--json")) if row["id"] == key["id"])
    assert listed == {name: value for name, value in key.items() if name != "key"}
    endpoint = answer(run("endpoint", "add", organization, "https://x.example/", "--event-type", "a.b", "--event-type", "c", "--json"))
    assert endpoint["secret"].startswith("whsec_")
    assert endpoint["event_types"] == ["a.b", "c"]
    listed = next(row for row in answer(run("endpoint", "list", "--json")) if row["id"] == endpoint["id"])
    assert listed == {name: value for name, value in endpoint.items() if name != "secret"}
    every = answer(run("endpoint", "add", organization, "https://x.example/", "--json"))
    assert every["event_types"] is None


def test_people_get_a_row_a_line_and_the_key_once(run: Command, organization: str) -> None:
    made = run("key", "create", organization).stdout
    (text,) = [line.split()[1] for line in made.splitlines() if line.startswith("key ")]
    (key_id,) = [line.split()[1] for line in made.splitlines() if line.startswith("id ")]
    listed = run("key", "list").stdout
    assert listed.splitlines()[0].split()[:2] == ["id", "organization"]
    assert sum(line.startswith(key_id) for line in listed.splitlines()) == 1
    assert text not in listed


def test_tables_and_topics_that_are_there_are_left_as_they_are(run: Command) -> None:
    migrated = answer(run("migrate", "--json"))
    assert migrated["before"] == migrated["after"] is not None
    assert answer(run("topics", "--json")) == {"created": []}


def test_a_rewrap_says_what_it_did(run: Command, organization: str, ours: dict[str, str]) -> None:
    run("endpoint", "add", organization, "https://x.example/")
    old, new = ours["TRIGGERS_MASTER_KEYS"], f"fresh:{base64.b64encode(bytes(32)).decode()}"
    both = {"TRIGGERS_MASTER_KEYS": f"{new},{old}"}
    done = answer(run("keyring", "rewrap", "--json", **both))
    assert done["master_key"] == "fresh"
    assert done["rewrapped"] >= 1
    assert answer(run("keyring", "rewrap", "--json", **both))["rewrapped"] == 0
    assert "master key fresh is needed" in complaint(run("keyring", "rewrap"))
    swapped = {"TRIGGERS_MASTER_KEYS": f"{old},{new}"}  # back, for the tests after this one
    assert answer(run("keyring", "rewrap", "--json", **swapped))["rewrapped"] >= 1


def test_an_event_type_is_put_shown_listed_and_deleted(run: Command, organization: str, settings_here: Settings, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_bytes(b'{ "type":"object" }')
    second.write_bytes(b'{"type":"object","required":["a"]}')
    made = answer(run("event-type", "put", organization, "order.paid", "--schema", str(first), "--description", "Paid", "--json"))
    assert (made["type"], made["description"], made["schema_version"], made["warnings"]) == ("order.paid", "Paid", 1, [])
    assert made["enforced"] == "now"
    changed = answer(run("event-type", "put", organization, "order.paid", "--schema", str(second), "--json"))
    assert (changed["description"], changed["schema_version"]) == ("Paid", 2)
    assert changed["warnings"] == [{"pointer": "/required", "change": "now required: a"}]
    with redis.Redis.from_url(settings_here.redis.url.get_secret_value()) as client:
        epoch = client.get(epoch_key())
        assert isinstance(epoch, bytes)
        assert epoch.split(b":")[0] == str(version(settings_here)).encode()
    assert answer(run("event-type", "show", organization, "order.paid", "--json"))["schema"] == {"type": "object", "required": ["a"]}
    assert '{"type":"object","required":["a"]}' in run("event-type", "show", organization, "order.paid").stdout
    assert [one["type"] for one in answer(run("event-type", "list", organization, "--json"))] == ["order.paid"]
    assert answer(run("event-type", "list", organization, "--mode", "test", "--json")) == []
    unchecked = answer(run("event-type", "put", organization, "order.paid", "--no-schema", "--json"))
    assert (unchecked["schema_version"], unchecked["description"]) == (None, "Paid")
    assert answer(run("event-type", "delete", organization, "order.paid", "--json")) == {"type": "order.paid", "deleted": "now"}
    assert "no event type order.paid" in complaint(run("event-type", "show", organization, "order.paid"))


def test_a_schema_comes_from_standard_input_too_and_what_is_wrong_with_it_is_said(
    ours: dict[str, str], run: Command, organization: str, tmp_path: Path
) -> None:
    put = ("event-type", "put", organization, "order.paid", "--schema")
    taken = CliRunner().invoke(app, [*put, "-", "--json"], env=ours, input='{"type":"string"}')
    assert answer(taken)["schema_version"] == 1
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"properties":{"a":{"$ref":"https://acme.example/a"}}}')
    assert "at /properties/a/$ref" in complaint(run(*put, str(wrong)))
    wrong.write_bytes(b" " * 1_000_000)
    assert "at most 65536" in complaint(run(*put, str(wrong)))
    assert "cannot be read: No such file" in complaint(run(*put, str(tmp_path / "gone.json")))
    assert "opposites" in complaint(run(*put, str(wrong), "--no-schema"))
    away = answer(run("event-type", "delete", organization, "order.paid", "--json", TRIGGERS_REDIS__URL=f"redis://{UNREACHABLE}/0"))
    assert away["deleted"].startswith("within 5 s (Redis was not told")


def revoked(settings: Settings, key_id: str) -> bool:
    with connect(settings.postgres, application="test") as connection:
        row = connection.execute("SELECT revoked_at IS NOT NULL FROM control.api_keys WHERE id = %s", (key_id,)).fetchone()
    assert row is not None
    return bool(row[0])


def version(settings: Settings) -> int:
    with connect(settings.postgres, application="test") as connection:
        row = connection.execute("SELECT version FROM control.revocation").fetchone()
    assert row is not None
    return int(row[0])


def test_a_revoke_changes_the_epoch_that_cached_keys_are_bound_to_each_time(
    run: Command, organization: str, settings_here: Settings
) -> None:
    key = answer(run("key", "create", organization, "--json"))["id"]
    with redis.Redis.from_url(settings_here.redis.url.get_secret_value()) as client:
        client.set(epoch_key(), f"{version(settings_here)}:before")
        seen = {client.get(epoch_key())}
        for _ in range(2):
            assert answer(run("key", "revoke", key, "--json")) == {"id": key, "revoked": "now"}
            epoch = client.get(epoch_key())
            assert isinstance(epoch, bytes)
            assert epoch.split(b":")[0] == str(version(settings_here)).encode()
            seen.add(epoch)
    assert len(seen) == 3
    assert revoked(settings_here, key)


def test_a_key_is_shown_rotated_and_listed_with_its_state(run: Command, organization: str) -> None:
    key = answer(run("key", "create", organization, "--expires-in", "90d", "--name", "shop", "--json"))
    assert (key["state"], key["scopes"]) == (
        "active",
        ["events:write", "inbox:read", "inbox:ack", "endpoints:manage", "event_types:manage"],
    )
    assert answer(run("key", "show", key["id"], "--json")) == {name: value for name, value in key.items() if name != "key"}
    turned = answer(run("key", "rotate", key["id"], "--overlap", "2h", "--json"))
    assert turned["key"] not in (key["key"], None)
    assert (turned["name"], turned["rotated_from"], turned["effective"]) == ("shop", key["id"], "now")
    old = answer(run("key", "show", key["id"], "--json"))
    assert (old["state"], old["rotated_to"], old["expires_at"]) == ("expiring", turned["id"], turned["old_ends_at"])
    dated = answer(run("key", "create", organization, "--expires-at", "2031-01-31T01:00:00+01:00", "--json"))
    assert dated["expires_at"] == "2031-01-31T00:00:00.000Z"
    run("key", "revoke", dated["id"])
    listed = answer(run("key", "list", "--organization", organization, "--json"))
    assert [(row["id"], row["state"]) for row in listed] == [(key["id"], "expiring"), (turned["id"], "active"), (dated["id"], "revoked")]
    shown = run("key", "list", "--organization", organization).stdout.splitlines()
    assert "state" in shown[0].split()
    assert len(shown) == 4


def test_what_changes_a_cached_key_changes_the_epoch(run: Command, organization: str, settings_here: Settings) -> None:
    key = answer(run("key", "create", organization, "--json"))["id"]
    with redis.Redis.from_url(settings_here.redis.url.get_secret_value()) as client:
        seen = {client.get(epoch_key())}
        for command in (
            ("key", "rotate", key),
            ("org", "suspend", organization),
            ("org", "resume", organization),
            ("org", "update", organization, "--plan", "free", "--rate-limit", "7"),
        ):
            assert answer(run(*command, "--json"))["effective"] == "now"
            epoch = client.get(epoch_key())
            assert isinstance(epoch, bytes)
            assert epoch.split(b":")[0] == str(version(settings_here)).encode()
            seen.add(epoch)
    assert len(seen) == 5


def test_an_organization_is_updated_suspended_and_resumed(run: Command, organization: str) -> None:
    changed = answer(run("org", "update", organization, "--name", "Acme & Sons", "--rate-limit", "7", "--json"))
    assert (changed["name"], changed["plan"], changed["rate_limit_per_minute"]) == ("Acme & Sons", "pro", 7)
    assert answer(run("org", "update", organization, "--plan-rate-limit", "--json"))["rate_limit_per_minute"] is None
    assert answer(run("org", "suspend", organization, "--json"))["suspended"] is True
    away = answer(run("org", "resume", organization, "--json", TRIGGERS_REDIS__URL=f"redis://{UNREACHABLE}/0"))
    assert away["suspended"] is False
    assert away["effective"].startswith("within 5 s (Redis was not told")


def test_an_operators_token_is_shown_once(run: Command) -> None:
    made = answer(run("operator", "create", "Ada", "--json"))
    assert made["token"].startswith("zap_op_")
    (listed,) = [row for row in answer(run("operator", "list", "--json")) if row["id"] == made["id"]]
    assert listed == {name: value for name, value in made.items() if name != "token"}
    assert answer(run("operator", "revoke", made["id"], "--json")) == {"id": made["id"], "revoked": "now"}
    (listed,) = [row for row in answer(run("operator", "list", "--json")) if row["id"] == made["id"]]
    assert listed["state"] == "revoked"
    assert made["token"] not in run("operator", "list").stdout


@pytest.mark.parametrize("url", [f"redis://{UNREACHABLE}/0", "nonsense", "redis://127.0.0.1:port/0", "silent"])
def test_a_revoke_that_cannot_tell_redis_holds_and_says_that_it_takes_seconds(
    run: Command, organization: str, settings_here: Settings, url: str
) -> None:
    key = answer(run("key", "create", organization, "--json"))["id"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        used = f"redis://127.0.0.1:{silent.getsockname()[1]}/0" if url == "silent" else url
        done = answer(run("key", "revoke", key, "--json", TRIGGERS_REDIS__URL=used))
        assert time.monotonic() - began_s < 5
    assert done["revoked"].startswith("within 5 s (Redis was not told")
    assert revoked(settings_here, key)


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (["org", "list"], {"TRIGGERS_POSTGRES__DSN": AWAY}, IS_IT_RUNNING),
        (["migrate"], {"TRIGGERS_POSTGRES__DSN": AWAY}, IS_IT_RUNNING),
        (["org", "list"], {"TRIGGERS_POSTGRES__DSN": "postgresql://u:hunter2@[bad/x"}, "TRIGGERS_POSTGRES__DSN cannot be read"),
        (["migrate"], {"TRIGGERS_POSTGRES__DSN": "hunter2"}, "TRIGGERS_POSTGRES__DSN cannot be read"),
        (["topics"], {"TRIGGERS_KAFKA__PARTITIONS": "hunter2"}, "TRIGGERS_KAFKA__PARTITIONS: Input should be a valid integer"),
        (["topics"], {"TRIGGERS_KAFKA": '{"hunter2'}, "check the TRIGGERS_ environment"),
        (["topics"], {"TRIGGERS_KAFKA__PARTITIONS": "7"}, "set it back to 4"),
        (["org", "create", ""], {}, "the name must have"),
        (["org", "create", "x", "--rate-limit", "99999999999"], {}, "the rate limit must be"),
        (["key", "create", "org_none"], {}, "`triggers org list` shows them"),
        (["key", "revoke", "key_none"], {}, "`triggers key list` shows them"),
        (["key", "create", "org_none", "--expires-in", "soon"], {}, "a number and one of s, m, h, d, w"),
        (["key", "create", "org_none", "--expires-at", "tomorrow"], {}, "must have its zone"),
        (["key", "create", "org_none", "--expires-at", "2031-01-01T00:00:00Z", "--expires-in", "1d"], {}, "not both"),
        (["key", "show", "key_none"], {}, "`triggers key list` shows them"),
        (["key", "rotate", "key_none"], {}, "`triggers key list` shows them"),
        (["key", "rotate", "key_none", "--overlap", "999d"], {}, "the overlap must be"),
        (["org", "suspend", "org_none"], {}, "`triggers org list` shows them"),
        (["org", "update", "org_none"], {}, "say what is to change"),
        (["org", "update", "org_none", "--rate-limit", "1", "--plan-rate-limit"], {}, "not both"),
        (["operator", "create", "\x1b"], {}, "the name must have"),
        (["operator", "revoke", "opr_none"], {}, "`triggers operator list` shows them"),
        (["endpoint", "add", "org_none", "https://x.example/"], {}, "`triggers org list` shows them"),
        (["endpoint", "add", "org_none", "ftp://x.example/"], {}, "must start with https://"),
        (["endpoint", "add", "org_none", "http://x.example/"], {"TRIGGERS_DELIVERY__ALLOW_INSECURE_ENDPOINTS": "false"}, "must start with https://"),
        (["endpoint", "add", "org_none", "https://x.example/", "--event-type", "a b"], {}, "is no event type"),
        (["endpoint", "add", "org_none", "https://x.example/"], {"TRIGGERS_MASTER_KEYS": ""}, "there is no master key"),
        (["event-type", "put", "org_none", "a"], {}, "`triggers org list` shows them"),
        (["event-type", "put", "org_none", "a b"], {}, "is no event type"),
        (["event-type", "show", "org_none", "a"], {}, "there is no event type a"),
        (["event-type", "list", "org_none"], {"TRIGGERS_POSTGRES__DSN": AWAY}, IS_IT_RUNNING),
        (["keyring", "rewrap"], {"TRIGGERS_MASTER_KEYS": "a:hunter2"}, "master key number 1 is malformed"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_that_says_what_to_do_and_holds_no_secret(
    run: Command, arguments: list[str], more: dict[str, str], says: str
) -> None:
    line = complaint(run(*arguments, **more))
    assert says in line
    assert "hunter2" not in line


def test_a_database_without_tables_is_told_apart_from_one_that_is_away(run: Command, settings: Settings) -> None:
    with empty_database(settings.postgres) as made:
        said = complaint(run("org", "list", TRIGGERS_POSTGRES__DSN=made.dsn.get_secret_value()))
    assert said == "the tables are not there yet: run `triggers migrate`"


def test_the_installed_program_ends_with_status_1_and_one_line(ours: dict[str, str]) -> None:
    done = subprocess.run(argv("key", "revoke", "key_none"), env=ours, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "triggers: there is no API key key_none: `triggers key list` shows them\n"
