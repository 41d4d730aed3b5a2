from __future__ import annotations

from runtime import migrations, revisions


def test_the_newest_revision_is_the_one_alembic_finds() -> None:
    assert revisions.newest() == migrations.newest()
