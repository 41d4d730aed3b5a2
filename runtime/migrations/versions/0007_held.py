"""What endpoints missed while they were disabled: rows of their events' plans that nothing was sent for."""

from alembic import op

revision = "0007_held"
down_revision = "0006_endpoints"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE folds.plans ADD COLUMN held boolean NOT NULL DEFAULT false;
    -- How many an endpoint missed, and which, in order.
    CREATE INDEX plans_held ON folds.plans (organization, mode, endpoint_id, journal_offset) WHERE held;
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
