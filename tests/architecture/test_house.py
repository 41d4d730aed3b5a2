"""House rules that are programs. Import rules are checked by import-linter in `make lint`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from runtime.settings import Settings
from schemas.topics import declared
from triggers.cli import app

ROOT = Path(__file__).parents[2]
LINES_MAX = 340


def tracked(pattern: str = "*") -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--", pattern], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_module_has_grown_past_one_responsibility() -> None:
    assert not [(path.name, lines) for path in tracked("*.py") if (lines := len(path.read_text().splitlines())) > LINES_MAX]


def test_no_file_names_a_package_index_or_records_download_addresses() -> None:
    address = re.compile(r"https?://[^ \"']+(/simple(/|$|\")|/maven2/|/-/[^ ]+\.tgz|\.(whl|jar|crate))")
    option = re.compile(r"^\s*(--index-url|--extra-index-url|--find-links|-i )", re.MULTILINE)
    for path in tracked():
        assert path.name not in {"uv.lock", "poetry.lock", "pylock.toml", "package-lock.json", "yarn.lock"}
        text = path.read_text(errors="ignore")
        assert not address.search(text), path
        if path.parent.name == "requirements":
            assert not option.search(text), path
            assert "--hash=sha256:" in text


def test_compose_runs_commands_that_exist_with_settings_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    ran = [service["command"] for service in compose["services"].values() if (service.get("command") or [""])[0] == "triggers"]
    assert {command[1] for command in ran} == {"serve", "process", "deliver"}
    assert {command[1] for command in ran} <= commands
    fields = Settings.model_fields
    for service in compose["services"].values():
        for name in service.get("environment") or {}:
            if name.startswith("TRIGGERS_"):
                section, _, field = name.removeprefix("TRIGGERS_").lower().partition("__")
                assert section in fields, name
                kind = fields[section].annotation
                assert not field or field in getattr(kind, "model_fields", {}), name


def test_every_topic_keyed_by_organization_says_who_reads_it() -> None:
    silent = {topic.name for topic in declared([5]) if not topic.groups and topic.key == "organization"}
    assert silent == {"deliveries.dead"}


def test_the_readme_names_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^triggers ([\w-]+)", readme, re.MULTILINE)) <= commands
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", readme)) <= targets
