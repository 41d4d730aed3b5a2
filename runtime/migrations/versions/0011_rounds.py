"""Deliveries that were asked for: rounds with attempts of their own; and what an endpoint missed, found in the order of its events.

What is here already is of the first round, whose name is empty.
"""

from alembic import op

revision = "0011_rounds"
down_revision = "0010_fifo"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE folds.attempts
        ADD COLUMN round text NOT NULL DEFAULT '',
        ADD COLUMN cause text,
        DROP CONSTRAINT attempts_pkey,
        ADD CONSTRAINT attempts_pkey PRIMARY KEY (organization, mode, event_id, endpoint_id, round, attempt);

    -- Rounds other than the first, from when they are planned.
    CREATE TABLE folds.rounds (
        organization   text NOT NULL,
        mode           text NOT NULL,
        event_id       text NOT NULL,
        endpoint_id    text NOT NULL,
        round          text NOT NULL,
        cause          text NOT NULL,
        partition      integer NOT NULL,
        journal_offset bigint NOT NULL,
        PRIMARY KEY (organization, mode, event_id, endpoint_id, round)
    );

    -- What an endpoint missed: dead letters, and what was held.
    CREATE INDEX attempts_dead ON folds.attempts (organization, mode, endpoint_id, event_id) WHERE next_kind = 'dead';
    CREATE INDEX plans_missed ON folds.plans (organization, mode, endpoint_id, event_id) WHERE held;
    -- The attempts of one call.
    CREATE INDEX attempts_round ON folds.attempts (organization, mode, endpoint_id, round, journal_offset) WHERE round <> '';
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
