"""Retention: how many days an organization's events stay readable, how far that has been applied, and what is gone because of it."""

from alembic import op

revision = "0013_retention"
down_revision = "0012_replays"


def upgrade() -> None:
    op.execute("""
    -- Null: the plan's. 0: for ever.
    ALTER TABLE control.organizations ADD COLUMN retention_days integer CHECK (retention_days >= 0);

    -- The mark of an organization and mode: nothing is kept about events whose id is below `event_id`. `position` is the offset of the
    -- record on `lifecycle` that moved it there.
    CREATE TABLE folds.retention (
        organization text NOT NULL,
        mode         text NOT NULL,
        partition    integer NOT NULL,
        position     bigint NOT NULL,
        event_id     text NOT NULL,
        PRIMARY KEY (organization, mode)
    );

    -- The highest position of an accepted record that has no row in the inbox (any more), and its event.
    CREATE TABLE folds.removed (
        organization text NOT NULL,
        mode         text NOT NULL,
        generation   integer NOT NULL,
        partition    integer NOT NULL,
        position     bigint NOT NULL,
        event_id     text NOT NULL,
        PRIMARY KEY (organization, mode, generation)
    );
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
