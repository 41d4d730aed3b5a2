"""Replays: what was asked for, whether it goes on, and how far it is at each of its endpoints."""

from alembic import op

revision = "0012_replays"
down_revision = "0011_rounds"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE control.replays (
        id             text PRIMARY KEY,
        organization   text NOT NULL REFERENCES control.organizations (id),
        mode           text NOT NULL CHECK (mode IN ('live', 'test')),
        event_types    text[] NOT NULL,
        from_position  bigint NOT NULL,
        until_position bigint NOT NULL CHECK (until_position >= from_position),
        since_ms       bigint NOT NULL,
        until_ms       bigint NOT NULL,
        rate_per_s     double precision NOT NULL CHECK (rate_per_s > 0),
        state          text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled')),
        skipped        jsonb NOT NULL,
        created_at     timestamptz NOT NULL DEFAULT now(),
        changed_at     timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX replays_organization ON control.replays (organization, id);

    -- The page that is next, and what came before it. `waiting`: no record of the log asks for this page.
    CREATE TABLE control.replay_endpoints (
        replay        text NOT NULL REFERENCES control.replays (id),
        endpoint      text NOT NULL,
        expected      bigint,
        page          bigint NOT NULL DEFAULT 0,
        next_position bigint NOT NULL,
        ingested_high bigint NOT NULL DEFAULT -1,
        begun         bigint NOT NULL DEFAULT 0,
        waiting       boolean NOT NULL DEFAULT true,
        ended         text CHECK (ended IN ('done', 'cancelled', 'endpoint_missing', 'log_missing')),
        PRIMARY KEY (replay, endpoint)
    );
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
