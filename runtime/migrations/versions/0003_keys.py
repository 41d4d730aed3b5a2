"""Keys in full and the people who run the system: suspended organizations, expiry, rotation and last use of keys, operators."""

from alembic import op

revision = "0003_keys"
down_revision = "0002_folds"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE control.organizations ADD COLUMN suspended_at timestamptz;

    ALTER TABLE control.api_keys
        -- Written by each API process every 30 s; for people, never for a decision.
        ADD COLUMN last_used_at timestamptz,
        ADD COLUMN rotated_from text REFERENCES control.api_keys (id);
    -- A key has one successor, so two rotations at once cannot leave two.
    CREATE UNIQUE INDEX api_keys_rotated_from ON control.api_keys (rotated_from);
    -- Pages of an organization's keys.
    CREATE INDEX api_keys_organization_id ON control.api_keys (organization, id);
    DROP INDEX control.api_keys_organization;

    CREATE TABLE control.operators (
        id           text PRIMARY KEY,
        name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
        hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
        created_at   timestamptz NOT NULL DEFAULT now(),
        last_used_at timestamptz,
        revoked_at   timestamptz
    );
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
