"""The catalogue of event types and the schemas their payloads must match. Control plane: not rebuilt from topics.

Schema versions are kept for ever, as the bytes that were sent: what an event was checked against can be looked up later.
"""

from alembic import op

revision = "0004_event_types"
down_revision = "0003_keys"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE control.event_types (
        organization   text NOT NULL REFERENCES control.organizations (id),
        mode           text NOT NULL CHECK (mode IN ('live', 'test')),
        type           text NOT NULL CHECK (length(type) BETWEEN 1 AND 256),
        description    text NOT NULL DEFAULT '' CHECK (length(description) <= 1000),
        -- The version payloads are checked against; null: they are not checked.
        schema_version integer CHECK (schema_version > 0),
        created_at     timestamptz NOT NULL DEFAULT now(),
        updated_at     timestamptz NOT NULL DEFAULT now(),
        deleted_at     timestamptz CHECK (deleted_at IS NULL OR schema_version IS NULL),
        PRIMARY KEY (organization, mode, type)
    );

    CREATE TABLE control.event_type_schemas (
        organization text NOT NULL,
        mode         text NOT NULL,
        type         text NOT NULL,
        version      integer NOT NULL CHECK (version > 0),
        schema       bytea NOT NULL CHECK (length(schema) BETWEEN 1 AND 65536),
        sha256       bytea NOT NULL CHECK (length(sha256) = 32),
        created_at   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (organization, mode, type, version),
        FOREIGN KEY (organization, mode, type) REFERENCES control.event_types (organization, mode, type)
    );

    ALTER TABLE control.event_types ADD FOREIGN KEY (organization, mode, type, schema_version)
        REFERENCES control.event_type_schemas (organization, mode, type, version);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
