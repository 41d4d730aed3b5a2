"""The folds: everything Postgres knows about events. Each table is a function of topics and can be dropped and folded again.

So there is no now(), no sequence and no random value here, and order comes from log positions only.
"""

from alembic import op

revision = "0002_folds"
down_revision = "0001_control"


def upgrade() -> None:
    op.execute("""
    CREATE SCHEMA folds;

    -- Where each fold stands. Moved in the transaction that writes the rows, and only from the offset the batch began at.
    CREATE TABLE folds.projection_offsets (
        topic         text NOT NULL,
        partition     integer NOT NULL,
        generation    integer NOT NULL,
        next_offset   bigint NOT NULL,
        -- events.accepted only: the highest ingested offset taken. Copies left by a crash of dedup are not above it.
        ingested_high bigint NOT NULL DEFAULT -1,
        PRIMARY KEY (topic, partition, generation)
    );

    CREATE TABLE folds.inbox (
        organization    text NOT NULL,
        mode            text NOT NULL,
        generation      integer NOT NULL,
        position        bigint NOT NULL,
        partition       integer NOT NULL,
        event_id        text NOT NULL,
        type            text NOT NULL,
        subject         text,
        occurred_at     text,
        received_at_ms  bigint NOT NULL,
        appended_at_ms  bigint NOT NULL,
        ingested_offset bigint NOT NULL,
        content_type    text NOT NULL,
        payload         bytea NOT NULL,
        payload_sha256  bytea NOT NULL,
        PRIMARY KEY (organization, mode, generation, position),
        UNIQUE (organization, event_id)
    );
    CREATE INDEX inbox_type ON folds.inbox (organization, mode, type, generation, position);

    CREATE TABLE folds.acks (
        organization text NOT NULL,
        mode         text NOT NULL,
        event_id     text NOT NULL,
        partition    integer NOT NULL,
        position     bigint NOT NULL,
        acked_at_ms  bigint NOT NULL,
        PRIMARY KEY (organization, mode, event_id)
    );

    -- Derived from inbox and acks, kept by both folds under one lock per partition, so that either order gives the same rows.
    CREATE TABLE folds.unacked (
        organization text NOT NULL,
        mode         text NOT NULL,
        generation   integer NOT NULL,
        position     bigint NOT NULL,
        event_id     text NOT NULL,
        PRIMARY KEY (organization, mode, generation, position)
    );

    CREATE TABLE folds.plans (
        organization   text NOT NULL,
        mode           text NOT NULL,
        event_id       text NOT NULL,
        endpoint_id    text NOT NULL,
        partition      integer NOT NULL,
        journal_offset bigint NOT NULL,
        PRIMARY KEY (organization, mode, event_id, endpoint_id)
    );

    CREATE TABLE folds.attempts (
        organization   text NOT NULL,
        mode           text NOT NULL,
        event_id       text NOT NULL,
        endpoint_id    text NOT NULL,
        attempt        integer NOT NULL,
        partition      integer NOT NULL,
        journal_offset bigint NOT NULL,
        outcome        text NOT NULL,
        started_at_ms  bigint NOT NULL,
        duration_ms    bigint NOT NULL,
        worker         text NOT NULL,
        status         integer,
        error          text,
        response       text,
        next_kind      text,
        next_at_ms     bigint,
        dead_reason    text,
        PRIMARY KEY (organization, mode, event_id, endpoint_id, attempt)
    );

    CREATE TABLE folds.duplicates (
        organization    text NOT NULL,
        mode            text NOT NULL,
        event_id        text NOT NULL,
        type            text NOT NULL,
        original_id     text NOT NULL,
        kind            text NOT NULL,
        partition       integer NOT NULL,
        ingested_offset bigint NOT NULL,
        appended_at_ms  bigint NOT NULL,
        PRIMARY KEY (organization, event_id)
    );
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
