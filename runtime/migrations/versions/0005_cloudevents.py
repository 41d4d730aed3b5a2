"""The inbox keeps a CloudEvent's context attributes, and says whether a payload is JSON or base64 of something else."""

from alembic import op

revision = "0005_cloudevents"
down_revision = "0004_event_types"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE folds.inbox
        ADD COLUMN base64     boolean NOT NULL DEFAULT false,
        -- A JSON object as text: it is only ever repeated, never looked into.
        ADD COLUMN cloudevent text;
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
