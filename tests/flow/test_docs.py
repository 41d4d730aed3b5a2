"""The pages under docs/ do not lie: their commands are run on the running system, and each answer is the one that stands below it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from access.endpoint_secrets import secret_text
from schemas.problems import REGISTRY
from tests.snippets import LANGUAGES, prepare, running
from triggers.provision import make_tenant
from triggers.system import System, until

DOCS = Path(__file__).parents[2] / "docs"
#: A command and the answer below it.
_STEP = re.compile(r"^```sh\n(?P<command>.*?)^```\n```http\n(?P<answer>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^```sh$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
_PROBLEM = re.compile(r"^\| `([a-z-]+)` \| (\d{3}) \|", re.MULTILINE)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if _COMMAND.search(path.read_text()))


class Answer(NamedTuple):
    """`…` in a value stands for anything."""

    status: int
    headers: dict[str, str]
    body: Any


def answer_of(text: str) -> Answer:
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, json.loads(body))


def agrees(written: Any, real: Any) -> bool:
    """Whether `real` is as written: objects may have more members than are shown."""
    if isinstance(written, dict):
        return isinstance(real, dict) and all(name in real and agrees(value, real[name]) for name, value in written.items())
    if isinstance(written, list):
        return isinstance(real, list) and len(written) == len(real) and all(agrees(*pair) for pair in zip(written, real, strict=True))
    if isinstance(written, str) and "…" in written:
        return re.fullmatch(".*".join(map(re.escape, written.split("…"))), str(real), re.DOTALL) is not None
    return type(written) is type(real) and bool(written == real)


def test_the_pages_per_task_are_among_those_that_are_run() -> None:
    assert {"first-event.md", "idempotency.md", "batch.md", "cloudevents.md", "inbox.md", "errors.md", "event-types.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_answered_as_it_says(page: str, system: System) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    text = (DOCS / page).read_text()
    steps = list(_STEP.finditer(text))
    assert len(steps) == len(_COMMAND.findall(text)), "every command stands above its answer"
    variables = {"PATH": "/usr/bin:/bin", "URL": system.url, "KEY": make_tenant(system.settings, page).key}
    for step in steps:
        written = answer_of(step["answer"])
        ran = subprocess.run(
            ["/bin/bash", "-ec", step["command"].replace("curl -i", "curl -sS -i --max-time 45")],
            env=variables, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        real = answer_of(ran.stdout)
        assert real.status == written.status, (step["command"], ran.stdout)
        for name, value in written.headers.items():
            assert agrees(value, real.headers.get(name)), (step["command"], name, real.headers)
        assert agrees(written.body, real.body), (step["command"], written.body, real.body)
        variables.update({name: real.body[member] for name, member in (("ID", "id"), ("CURSOR", "next_cursor")) if member in real.body})


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_receivers_of_the_page_take_what_is_delivered_and_the_old_secret_does_during_a_rotation(
    language: str, system: System, tmp_path: Path
) -> None:
    command, inbox = prepare(language, tmp_path), tmp_path / "inbox"
    headers = {"X-API-Key": make_tenant(system.settings, language).key}
    first = {"secret": secret_text(os.urandom(32))}
    with running(command, first["secret"], inbox) as url, httpx.Client(base_url=system.url, headers=headers, timeout=15) as client:
        endpoint = client.post("/endpoints", json={"url": url, **first}).json()["id"]

        def deliver() -> None:
            event = client.post("/events", json={"type": "order.paid", "payload": {"city": "Łódź"}}).json()["id"]
            until((inbox / event).exists, 40, "the receiver keeping it")
            until(lambda: bool(client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]), 40, "the attempt being told")

        deliver()
        assert client.post(f"/endpoints/{endpoint}/rotate-secret").status_code == 200
        deliver()
        told = client.get(f"/endpoints/{endpoint}/attempts").json()["attempts"]
        assert {(one["outcome"], one["status"]) for one in told} == {("delivered", 204)}


def test_the_page_about_errors_has_every_problem_with_its_status() -> None:
    shown = _PROBLEM.findall((DOCS / "errors.md").read_text())
    assert sorted(shown) == sorted((problem.slug, str(problem.status)) for problem in REGISTRY.values())


def test_the_index_names_every_page_and_no_link_leads_nowhere() -> None:
    for path in [*DOCS.glob("*.md"), *DOCS.glob("operating/*.md")]:
        for target in _LINK.findall(path.read_text()):
            assert (path.parent / target).exists(), (path.name, target)
    index = set(_LINK.findall((DOCS / "README.md").read_text()))
    assert {path.name for path in DOCS.iterdir() if path.is_file()} - {"README.md"} <= index
