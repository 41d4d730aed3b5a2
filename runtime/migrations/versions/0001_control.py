"""The control plane: organizations, API keys, endpoints and their secrets, the audit log.

Ordinary relational state: it cannot be rebuilt from topics and is backed up. Every change writes its audit row in its own transaction.
"""

from alembic import op

revision = "0001_control"
down_revision = None


def upgrade() -> None:
    op.execute("""
    CREATE SCHEMA control;

    CREATE TABLE control.organizations (
        id                    text PRIMARY KEY,
        name                  text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
        plan                  text NOT NULL DEFAULT 'free' CHECK (plan IN ('free', 'starter', 'pro', 'enterprise')),
        rate_limit_per_minute integer CHECK (rate_limit_per_minute > 0),
        created_at            timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE control.api_keys (
        id           text PRIMARY KEY,
        organization text NOT NULL REFERENCES control.organizations (id),
        mode         text NOT NULL CHECK (mode IN ('live', 'test')),
        name         text NOT NULL,
        prefix       text NOT NULL CHECK (length(prefix) = 12),
        hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
        scopes       text[] NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        expires_at   timestamptz,
        revoked_at   timestamptz
    );
    CREATE INDEX api_keys_prefix ON control.api_keys (prefix);
    CREATE INDEX api_keys_organization ON control.api_keys (organization);

    -- One row. Its version rises in the transaction of every revoke; caches of keys are bound to it.
    CREATE TABLE control.revocation (
        single  boolean PRIMARY KEY DEFAULT true CHECK (single),
        version bigint NOT NULL
    );
    INSERT INTO control.revocation (version) VALUES (1);

    CREATE TABLE control.endpoints (
        id              text PRIMARY KEY,
        organization    text NOT NULL REFERENCES control.organizations (id),
        mode            text NOT NULL CHECK (mode IN ('live', 'test')),
        url             text NOT NULL CHECK (length(url) <= 2048),
        description     text NOT NULL DEFAULT '',
        event_types     text[],
        enabled         boolean NOT NULL DEFAULT true,
        disabled_reason text,
        created_at      timestamptz NOT NULL DEFAULT now(),
        updated_at      timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX endpoints_organization ON control.endpoints (organization, mode);

    CREATE TABLE control.endpoint_secrets (
        endpoint      text NOT NULL REFERENCES control.endpoints (id) ON DELETE CASCADE,
        id            integer NOT NULL,
        ciphertext    bytea NOT NULL,
        master_key_id text NOT NULL,
        created_at    timestamptz NOT NULL DEFAULT now(),
        expires_at    timestamptz,
        PRIMARY KEY (endpoint, id)
    );

    CREATE TABLE control.audit_log (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at           timestamptz NOT NULL DEFAULT now(),
        actor        text NOT NULL,
        action       text NOT NULL,
        organization text,
        target       text NOT NULL,
        detail       jsonb NOT NULL DEFAULT '{}'
    );
    CREATE INDEX audit_log_organization ON control.audit_log (organization, id);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
