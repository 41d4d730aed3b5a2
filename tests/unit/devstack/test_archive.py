from __future__ import annotations

import os
from pathlib import Path

import pytest

from triggers.devstack.archive import ARCHIVES_MAX, archive_path, ensure
from triggers.devstack.server import Cancelled, ServerError


def write(path: Path) -> None:
    path.write_bytes(b"archive")


def test_an_archive_is_made_once_and_used_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "one.jsa"
    first = ensure(path, write, print)
    assert first == ensure(path, lambda _: pytest.fail("made twice"), print)
    assert first == (f"-XX:SharedArchiveFile={path}", "-Xshare:auto")


def test_a_failed_archive_stops_nothing_and_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "one.jsa"
    told: list[str] = []

    def fail(draft: Path) -> None:
        write(draft)
        raise ServerError("no memory\nand a log")

    assert ensure(path, fail, told.append) == ()
    assert ensure(path, lambda _: pytest.fail("tried again"), told.append) == ()
    assert told[-1].endswith("no memory")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lock", "one.failed"]


def test_a_cancelled_start_leaves_the_archive_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "one.jsa"

    def cancelled(_: Path) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        ensure(path, cancelled, print)
    assert ensure(path, write, print) != ()


def test_old_archives_are_removed(tmp_path: Path) -> None:
    for number in range(ARCHIVES_MAX + 2):
        old = tmp_path / f"{number}.jsa"
        write(old)
        os.utime(old, (number, number))
    ensure(tmp_path / "new.jsa", write, print)
    assert sorted(one.name for one in tmp_path.glob("*.jsa")) == ["3.jsa", "4.jsa", "5.jsa", "new.jsa"]


def test_archives_in_use_do_not_take_each_other_away(tmp_path: Path) -> None:
    many = [tmp_path / f"{number}.jsa" for number in range(3 * ARCHIVES_MAX)]
    for path in many:
        ensure(path, write, print)
    os.utime(many[0], (1, 1))
    ensure(many[0], lambda _: pytest.fail("made twice"), print)  # used again, so it is not the oldest any more
    ensure(tmp_path / "new.jsa", write, print)
    assert all(path.exists() for path in many)


def test_another_jar_or_option_has_another_archive(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    write(jar)
    java = tmp_path / "bin" / "java"
    before = archive_path(tmp_path, java, [jar], ["-Xmx1m"])
    assert archive_path(tmp_path, java, [jar], ["-Xmx1m"]) == before
    assert archive_path(tmp_path, java, [jar], ["-Xmx2m"]) != before
    jar.write_bytes(b"longer archive")
    assert archive_path(tmp_path, java, [jar], ["-Xmx1m"]) != before
