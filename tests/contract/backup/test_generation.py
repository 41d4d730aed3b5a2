"""Topics of a later generation: known when a process begins, kept by a backup, and never mixed with tables of another one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from projections.offsets import OtherGeneration, fold_generation, load_offsets
from projections.sessions import connect
from runtime import topics
from runtime.clock import SYSTEM
from runtime.postgres import FOLDS_SCHEMA
from runtime.settings import Settings
from schemas.topics import FIRST_GENERATION, generation_topic
from tests.contract.backup.rig import quiet
from tests.contract.rebuild.rig import fetch, places, rebuild
from triggers.backup import manifest
from triggers.backup.manifest import MANIFEST
from triggers.backup.restore import restore
from triggers.backup.save import Done, save
from triggers.backup.target import NotEmpty
from triggers.processes import wait_for_kafka

LATER = 3


@pytest.fixture(autouse=True)
def _first_generation_afterwards() -> Iterator[None]:
    yield
    fold_generation(FIRST_GENERATION)


@pytest.fixture
def later(saved: tuple[Path, Done], tmp_path: Path) -> Path:
    """A backup as one of a system that was moved twice."""
    directory = shutil.copytree(saved[0], tmp_path / "backup")
    _, made = manifest.decode((directory / MANIFEST).read_bytes())
    (directory / MANIFEST).write_bytes(manifest.encode(msgspec.structs.replace(made, generation=LATER))[1])
    return directory


async def begin_folding(settings: Settings) -> None:
    """As the project processor does when it gets its partitions."""
    connection = await connect(settings.postgres, FOLDS_SCHEMA)
    try:
        await load_offsets(connection, places(settings))
    finally:
        await connection.close()


def test_a_restored_system_is_of_the_generation_it_was_and_its_tables_are_of_no_other(
    later: Path, target: Settings, tmp_path: Path
) -> None:
    restore(target, later, SYSTEM, quiet)
    assert wait_for_kafka(target) == LATER
    assert fetch(target, "SELECT DISTINCT generation FROM inbox") == [(LATER,)]
    assert fetch(target, "SELECT DISTINCT generation FROM projection_offsets") == [(LATER,)]
    fold_generation(FIRST_GENERATION)
    with pytest.raises(OtherGeneration, match="generation 3, and these are of generation 1"):
        asyncio.run(begin_folding(target))
    assert fetch(target, "SELECT DISTINCT generation FROM projection_offsets") == [(LATER,)]
    assert rebuild(target, verify_only=True).equal  # a rebuild looks at the topics itself
    several = target.rebuild.model_copy(update={"processes": 2, "process_records_min": 1})
    assert rebuild(target.model_copy(update={"rebuild": several}), verify_only=True).equal  # and tells its other process
    again = save(target, tmp_path / "again", SYSTEM, quiet)
    assert again.manifest.generation == LATER


def test_a_backup_is_not_restored_beside_topics_of_another_generation(saved: tuple[Path, Done], target: Settings) -> None:
    client = topics.admin(target.kafka)
    topics.create(client, generation_topic(2), partitions=1, replication_factor=1, config={})
    with pytest.raises(NotEmpty, match="topics of generation 2 were here"):
        restore(target, saved[0], SYSTEM, quiet)
