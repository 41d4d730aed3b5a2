from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from triggers.devstack import jars as subject
from triggers.devstack.jars import SUMS, JarError, check, default_cache, jars, parse_sums


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "jars"
    made.mkdir()
    (made / "a.jar").write_bytes(b"a")
    (made / "b.jar").write_bytes(b"b")
    return made


PINNED = {"b.jar": digest(b"b"), "a.jar": digest(b"a")}


def test_pinned_jars_come_in_the_order_of_the_sums(folder: Path) -> None:
    assert check(folder, PINNED) == [folder / "b.jar", folder / "a.jar"]


def test_a_wrong_jar_is_named(folder: Path) -> None:
    (folder / "a.jar").write_bytes(b"changed")
    with pytest.raises(JarError, match=r"a\.jar has SHA-256 .* is pinned"):
        check(folder, PINNED)


def test_an_unknown_jar_is_named(folder: Path) -> None:
    (folder / "c.jar").write_bytes(b"c")
    with pytest.raises(JarError, match=r"c\.jar is not among the pinned jars"):
        check(folder, PINNED)


def test_a_missing_jar_is_named(folder: Path) -> None:
    (folder / "b.jar").unlink()
    with pytest.raises(JarError, match=r"b\.jar is missing"):
        check(folder, PINNED)


def test_the_checked_in_sums_pin_kafka_and_a_binding_of_the_same_slf4j() -> None:
    names = parse_sums(SUMS.read_text()).keys()
    assert "kafka_2.13-4.2.0.jar" in names
    versions = {name.rpartition("-")[2] for name in names if name.startswith("slf4j-")}
    assert len(versions) == 1
    assert {name.rpartition("-")[0] for name in names if name.startswith("slf4j-")} == {"slf4j-api", "slf4j-simple"}


@pytest.mark.parametrize("text", ["nonsense", "abc  a.jar", f"{'0' * 64}  ", f"{'0' * 64}  a.jar\n{'1' * 64}  a.jar"])
def test_a_damaged_sums_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a line of sha256 sums"):
        parse_sums(text)


def test_a_second_start_fetches_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = tmp_path / "sums"
    sums.write_text("".join(f"{value}  {key}\n" for key, value in PINNED.items()))
    monkeypatch.setattr(subject, "SUMS", sums)
    monkeypatch.setattr(subject, "_resolve", lambda *_: pytest.fail("the network was asked"))
    assert jars(tmp_path, print) == [folder / "b.jar", folder / "a.jar"]


def test_a_broken_shared_repository_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "m2"
    shared.mkdir()
    sums = tmp_path / "sums"
    sums.write_text(f"{digest(b'good')}  a.jar\n")
    told: list[str] = []

    def resolve(draft: Path, _repository: Path, local: list[Path], *_: object) -> None:
        draft.mkdir()
        (draft / "a.jar").write_bytes(b"broken" if local else b"good")

    monkeypatch.setenv("M2_REPO", str(shared))
    monkeypatch.setattr(subject, "SUMS", sums)
    monkeypatch.setattr(subject, "_resolve", resolve)
    found = jars(tmp_path / "cache", told.append)
    assert [path.read_bytes() for path in found] == [b"good"]
    assert any("afresh" in line for line in told)


def test_a_failed_fetch_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(draft: Path, *_: object) -> None:
        draft.mkdir()
        raise OSError("no network")

    monkeypatch.setenv("M2_REPO", str(tmp_path / "none"))
    monkeypatch.setattr(subject, "_resolve", resolve)
    with pytest.raises(JarError, match="no network"):
        jars(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/triggers/kafka-4.2.0")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which the specification says to ignore")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_cache() == Path("/home/u/.cache/triggers/kafka-4.2.0")
