"""What endpoints missed while they were disabled: a fold of the plans in the delivery journal, one row an event and endpoint."""

from alembic import op

revision = "0007_held"
down_revision = "0006_endpoints"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE folds.held (
        organization   text NOT NULL,
        mode           text NOT NULL,
        event_id       text NOT NULL,
        endpoint_id    text NOT NULL,
        partition      integer NOT NULL,
        journal_offset bigint NOT NULL,
        PRIMARY KEY (organization, mode, event_id, endpoint_id)
    );
    -- How many an endpoint missed, and which, in order.
    CREATE INDEX held_endpoint ON folds.held (organization, mode, endpoint_id, journal_offset);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
