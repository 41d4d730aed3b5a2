"""What an endpoint can be told: headers, pace, schedule, deadline, a second signature, order; when it was disabled, fails, was deleted.

A deleted endpoint stays as a row, so that its attempts can still be read by its owner. Nothing is delivered to it.
Attempts are found by endpoint, too.
"""

from alembic import op

revision = "0006_endpoints"
down_revision = "0005_cloudevents"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE control.endpoints
        ADD COLUMN headers          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
        -- Deliveries a minute; null: no limit of its own.
        ADD COLUMN rate_per_minute  integer CHECK (rate_per_minute > 0),
        -- Attempts at once; null: what the worker allows.
        ADD COLUMN concurrency      integer CHECK (concurrency BETWEEN 1 AND 64),
        -- The pauses between attempts by name; `default` is the worker's setting. `schedule_s`: seconds, where they are its own.
        ADD COLUMN schedule         text NOT NULL DEFAULT 'default' CHECK (schedule IN ('default', 'standard', 'custom')),
        ADD COLUMN schedule_s       double precision[] CHECK (
            cardinality(schedule_s) BETWEEN 1 AND 20 AND 1 <= ALL (schedule_s) AND 86400 >= ALL (schedule_s)
            AND array_position(schedule_s, NULL) IS NULL
        ),
        -- Of one attempt, in seconds; null: the worker's setting.
        ADD COLUMN deadline_s       double precision CHECK (deadline_s BETWEEN 1 AND 60),
        -- {"header", "scheme"} of a signature in another sender's form, besides the standard one.
        ADD COLUMN legacy_signature jsonb CHECK (jsonb_typeof(legacy_signature) = 'object'),
        ADD COLUMN fifo             boolean NOT NULL DEFAULT false,
        ADD COLUMN fifo_block       boolean NOT NULL DEFAULT false,
        ADD COLUMN disabled_at      timestamptz,
        -- The first failure after a success; a success clears it.
        ADD COLUMN failing_since    timestamptz,
        ADD COLUMN deleted_at       timestamptz,
        ADD CONSTRAINT endpoints_own_schedule CHECK ((schedule = 'custom') = (schedule_s IS NOT NULL)),
        ADD CONSTRAINT endpoints_deleted_disabled CHECK (deleted_at IS NULL OR NOT enabled),
        ADD CONSTRAINT endpoints_disabled_reason_check CHECK (disabled_reason IN ('operator', 'owner', 'gone', 'failing'));

    UPDATE control.endpoints SET disabled_at = updated_at WHERE NOT enabled;

    -- Lists and deliveries look at those that are there, however many were deleted.
    DROP INDEX control.endpoints_organization;
    CREATE INDEX endpoints_organization ON control.endpoints (organization, mode, id) WHERE deleted_at IS NULL;

    -- An endpoint's attempts newest first, of one outcome or merged from both.
    CREATE INDEX attempts_endpoint ON folds.attempts (organization, mode, endpoint_id, outcome, journal_offset);
    """)


def downgrade() -> None:
    raise NotImplementedError("migrations go forward; restore a backup to go back")
