"""What a FIFO endpoint waits for: the event whose schedule is used up, where the endpoint blocks rather than goes on without it."""

from alembic import op

revision = "0010_fifo"
down_revision = "0008_unacked_type"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE control.endpoints
        ADD COLUMN blocked_event text,
        ADD COLUMN blocked_since timestamptz,
        ADD CONSTRAINT endpoints_blocked CHECK ((blocked_event IS NULL) = (blocked_since IS NULL)),
        -- Only what is in order can wait for one event.
        ADD CONSTRAINT endpoints_fifo CHECK (fifo OR NOT fifo_block);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
