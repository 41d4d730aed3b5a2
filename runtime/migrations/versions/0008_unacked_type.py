"""The unacked index knows the type of its events: a page of one type is found without looking at all that are unacked."""

from alembic import op

revision = "0008_unacked_type"
down_revision = "0007_held"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE folds.unacked ADD COLUMN type text;
    UPDATE folds.unacked u SET type = i.type FROM folds.inbox i
    WHERE i.organization = u.organization AND i.mode = u.mode AND i.generation = u.generation AND i.position = u.position;
    ALTER TABLE folds.unacked ALTER COLUMN type SET NOT NULL;
    CREATE INDEX unacked_type ON folds.unacked (organization, mode, type, generation, position);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
