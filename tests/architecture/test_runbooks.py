"""No page of docs/operating/ has a command that no test runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from tests import runbooks
from triggers.cli import app

TESTS = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(triggers [^`]*)`")


def commands(one: object, path: tuple[str, ...] = ("triggers",)) -> Iterator[tuple[str, ...]]:
    """Every command there is, as its words."""
    if isinstance(one, TyperGroup):
        if one.invoke_without_command or one.callback is not None:
            yield path
        for name, each in one.commands.items():
            yield from commands(each, (*path, name))
    else:
        yield path


EVERY = sorted(commands(typer.main.get_command(app)))


def named_in(text: str) -> set[tuple[str, ...]]:
    """The commands a piece of shell gives, or a piece of prose names."""
    found = set()
    for words in re.findall(r"\btriggers((?: [a-z-]+)*)", text):
        given = ("triggers", *words.split())
        found |= {max((one for one in EVERY if one == given[: len(one)]), key=len, default=given)}
    return found


@pytest.mark.parametrize("page", runbooks.PAGES)
def test_every_block_of_a_runbook_is_a_command_above_what_it_prints(page: str) -> None:
    text = (runbooks.DOCS / page).read_text()
    opened = _FENCE.findall(text)[::2]
    steps = runbooks.steps_of(page)
    assert steps, "a runbook without a command"
    assert opened.count("sh") == len(steps), "every command stands above what it prints"
    # Of python is the checker of an audit export, which its test runs.
    assert {one.split()[0] if one else "" for one in opened} <= {"sh", "text", "python"}, "a block that nothing runs"


def test_what_counts_as_given_is_every_command_there_is() -> None:
    assert {("triggers", "dead", "redrive"), ("triggers", "topics"), ("triggers", "topics", "plan"), ("triggers", "serve")} <= set(EVERY)
    assert named_in("triggers process dedup & triggers topics --json") == {("triggers", "process"), ("triggers", "topics")}


def test_every_page_is_run_by_one_of_the_tests() -> None:
    assert sorted([*runbooks.RUNNING, *runbooks.STOPPED, *runbooks.RESTORED, *runbooks.GROWN]) == runbooks.PAGES
    tests = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    for name in ("RUNNING", "STOPPED", "RESTORED", "GROWN"):
        assert tests.count(f'parametrize("page", runbooks.{name}') == 1, name


def test_what_the_prose_tells_an_operator_to_give_is_given_on_some_page() -> None:
    given = {one for page in runbooks.PAGES for step in runbooks.steps_of(page) for one in named_in(step.command)}
    for page in [*runbooks.PAGES, runbooks.INDEX]:
        for inline in _INLINE.findall((runbooks.DOCS / page).read_text()):
            assert named_in(inline) <= given, (page, inline)


def test_the_index_names_every_page() -> None:
    index = set(re.findall(r"\]\(([a-z-]+\.md)\)", (runbooks.DOCS / runbooks.INDEX).read_text()))
    assert set(runbooks.PAGES) <= index
