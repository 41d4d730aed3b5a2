"""Encryption that an organization asks for: its data keys, and how the inbox keeps each payload."""

from alembic import op

revision = "0014_encryption"
down_revision = "0013_retention"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE control.organizations ADD COLUMN encryption boolean NOT NULL DEFAULT false;

    -- AES-256 keys, each under a master key. `subject_digest`: HMAC-SHA256 of a subject, or of there being none, under the organization's
    -- index secret, which is the row whose digest is empty: no subject is here in clear.
    CREATE TABLE control.data_keys (
        id             text PRIMARY KEY,
        organization   text NOT NULL REFERENCES control.organizations (id),
        subject_digest bytea NOT NULL,
        wrapped        bytea NOT NULL,
        master_key_id  text NOT NULL,
        created_at     timestamptz NOT NULL DEFAULT now(),
        UNIQUE (organization, subject_digest)
    );
    CREATE INDEX data_keys_master_key ON control.data_keys (master_key_id);

    -- Without a check: to make one, every row would be looked at while nobody may read.
    ALTER TABLE folds.inbox ADD COLUMN encoding text NOT NULL DEFAULT 'plain';
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
