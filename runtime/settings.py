"""The settings tree: every knob of every process, read once from the environment (`TRIGGERS_…`).

Nested fields are joined with a double underscore: `TRIGGERS_KAFKA__BOOTSTRAP_SERVERS`. The tree is frozen and handed down
from the composition root; no other module reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.deliveries import RESPONSE_BYTES_MAX

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[int, Field(ge=0, le=36_500)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Section):
    bootstrap_servers: str = "127.0.0.1:9092"
    #: Partitions of every topic keyed by organization. May never change for a topic generation: an organization lives in one.
    partitions: Positive = 4
    #: 1 only where one broker runs; production: 3, with min.insync.replicas 2.
    replication_factor: Positive = 1
    min_insync_replicas: Positive = 1
    #: Members are declared dead after this; static membership makes a restarted worker resume before it.
    session_timeout_s: Seconds = 10.0
    heartbeat_interval_s: Seconds = 3.0


class PostgresSettings(_Section):
    #: libpq connection string of the database; a password belongs into ~/.pgpass or PGPASSWORD where possible.
    dsn: SecretStr = SecretStr("postgresql://postgres@127.0.0.1:5432/triggers")
    pool_size_max: Positive = 8
    connect_timeout_s: Seconds = 3.0
    #: Bounds every statement of the API, so that a stopped server cannot exhaust the pool for good.
    statement_timeout_s: Seconds = 5.0


class RedisSettings(_Section):
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    #: One round trip may take this long; past it ingest goes on without Redis.
    timeout_s: Seconds = 0.1
    #: After a failure Redis is left alone this long (circuit breaker).
    retry_after_s: Seconds = 0.5


class ApiSettings(_Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    #: Interactive documentation at /docs. Not set: everywhere but in production.
    docs_enabled: bool | None = None

    # What one connection may cost (docs/limits.md). Times are checked twice a second; nothing hangs for more than ten.
    #: Bytes of method, target and headers together; trailers count as well.
    head_bytes_max: Positive = 16_384
    headers_max: Positive = 100
    #: Path and query together.
    target_bytes_max: Positive = 8_192
    #: From the first byte of a request to the end of its headers.
    head_timeout_s: Seconds = 9.0
    #: From the end of the headers to the end of the body. `POST /events` has its own, shorter deadline.
    body_timeout_s: Seconds = 9.0
    #: A connection on which nothing is asked, new or used, is closed after this.
    keep_alive_s: Seconds = 30.0
    #: An answer of which the caller takes nothing for this long is given up.
    send_timeout_s: Seconds = 30.0
    #: After a last answer in the middle of a request, what still comes is thrown away this long, so that the answer is not lost to a reset.
    linger_s: Seconds = 2.0
    #: Requests of one connection that wait behind the one being answered.
    pipelined_max: Positive = 16

    # What all of them may cost.
    #: Requests under way; one more is answered 503 `overloaded` at once. /health is always answered.
    requests_max: Positive = 1_000
    #: Open connections; one more is answered 503 and closed. Less where the process may not open that many files.
    connections_max: Positive = 10_000

    #: On a stop signal readiness says `draining` for this long before new connections are refused, so that load balancers look away.
    drain_s: Annotated[float, Field(ge=0)] = 0.0
    #: What is under way then gets this long; what is left is answered 503.
    shutdown_timeout_s: Seconds = 8.0

    #: Networks whose X-Forwarded-For and X-Forwarded-Proto are believed. Nobody's by default.
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    #: Origins whose pages may call the API from a browser, `*` for all. None by default.
    cors_origins: tuple[str, ...] = ()
    #: Strict-Transport-Security: set it only where every name of the service is served over TLS. 0 sends none.
    hsts_max_age_s: Annotated[int, Field(ge=0)] = 0


class AccessSettings(_Section):
    #: Keys and operators' tokens that one client address may get wrong in a minute; further ones are refused without a look-up. 0: no
    #: limit, for a proxy in front that hides its clients' addresses.
    failed_keys_per_minute_max: Annotated[int, Field(ge=0)] = 60
    #: How often each process writes down when keys were last used.
    last_used_interval_s: Seconds = 30.0
    #: Connections to Postgres for the operator API.
    control_connections_max: Positive = 8
    #: Webhook endpoints of an organization and mode: each of its events may become as many deliveries.
    endpoints_max: Positive = 50


class IngestSettings(_Section):
    #: Bytes of the payload slice (DESIGN section 4) and of the whole body around it.
    payload_bytes_max: Positive = 262_144
    body_overhead_bytes_max: Positive = 16_384
    #: Bytes of a whole batch, inflated.
    batch_bytes_max: Positive = 5_242_880
    #: From the first byte of a request to its answer, of one event and of a batch.
    request_deadline_s: Seconds = 6.0
    batch_deadline_s: Seconds = 15.0
    #: librdkafka's delivery timeout: past it the outcome of an append is unknown.
    delivery_timeout_s: Seconds = 5.0
    #: Events wait this long for others of their partition, so that a busy broker gets fewer and larger requests.
    linger_ms: Annotated[float, Field(ge=0)] = 1.0
    #: Lease of a pending reservation: a little longer than the delivery timeout, so that no two owners append at once.
    reservation_lease_s: Seconds = 7.0
    #: Window of idempotency, here and in the dedup table.
    idempotency_window_s: Seconds = 86_400.0
    #: A key stays in the process cache this long at most, in Redis this long.
    key_cache_process_s: Annotated[float, Field(gt=0, le=5.0)] = 5.0
    key_cache_redis_s: Seconds = 300.0
    #: Outstanding appends above which new ones are refused with 503 not_appended.
    appends_in_flight_max: Positive = 20_000


class ProcessorSettings(_Section):
    #: Where the RocksDB folders lie, one per worker slot.
    data_dir: Path = Path(".triggers/processors")
    #: Stable name of this worker: its static membership and its data folder. Two live workers may never share it.
    slot: str = "0"
    #: Records of one partition handed to an agent as one event.
    batch_size_max: Positive = 500
    #: The same for a fold: rows of one transaction. Under little load a batch is what has come, whatever this allows.
    fold_batch_size_max: Positive = 2_000
    #: Records produced and not yet confirmed above which no more input is delivered.
    unconfirmed_max: Positive = 20_000
    #: A produce without progress for this long ends the process.
    stall_timeout_s: Seconds = 60.0
    #: A rebalance, a recovery or a partition with records to come that stands still for this long ends the process.
    progress_timeout_s: Seconds = 20.0
    commit_interval_s: Seconds = 1.0
    fetch_wait_ms_max: Positive = 50
    linger_ms: Annotated[float, Field(ge=0)] = 2.0
    #: Age of the first uncommitted record past which the dedup table is rebuilt from the log: below the changelog's retention of 8 days.
    rebuild_after_s: Seconds = 7 * 86_400.0


class DeliverySettings(_Section):
    slot: str = "0"
    #: Pauses before attempts 2, 3, …; when they are used up the delivery is dead-lettered.
    schedule_s: tuple[Seconds, ...] = (30.0, 120.0, 480.0, 1_800.0, 3_600.0)
    #: The delay topics that compose every schedule; each holds no record longer than its own delay.
    delays_s: tuple[Seconds, ...] = (5.0, 30.0, 120.0, 480.0, 1_800.0, 3_600.0)
    attempt_timeout_s: Seconds = 30.0
    response_bytes_max: Positive = 65_536
    response_bytes_kept: Annotated[int, Field(gt=0, le=RESPONSE_BYTES_MAX)] = 4_096
    #: Part of a pause added to it at random, so that what failed together does not come back together. Nothing is ever taken off.
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    #: Records of one topic and partition under way, and the bytes of their values. No fewer than there are places for attempts, quick and
    #: slow: one partition alone can fill them. Each costs about 10 KB while it waits. Bytes for the attempts of some endpoints that hang
    #: with large events: a lane that is full holds up everybody.
    in_flight_per_partition_max: Positive = 400
    bytes_in_flight_per_partition_max: Positive = 33_554_432

    # What one endpoint may cost the others (docs/delivery.md).
    #: Attempts at once of a worker. Those that take longer than `slow_after_s` give their place back and are counted apart, up to
    #: `slow_concurrency`; endpoints known to be slow take only places of that kind.
    concurrency: Positive = 128
    slow_concurrency: Positive = 256
    slow_after_s: Seconds = 1.0
    #: Attempts at once at one endpoint that has no bound of its own. It begins with four and is found from successes and failures.
    endpoint_concurrency: Positive = 16
    #: Deliveries to one endpoint under way or waiting in memory; and how long one may be expected to wait. What exceeds either is put off.
    endpoint_in_flight_max: Positive = 500
    endpoint_wait_s: Seconds = 2.0
    #: Bytes of retries and put-off work on their way to the log.
    leg_bytes_in_flight_max: Positive = 33_554_432

    # The circuit breaker of an endpoint. It opens after so many failures in a row, or when at least `breaker_ratio` of at least
    # `breaker_attempts_min` attempts of the window failed.
    breaker_failures: Positive = 10
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = 0.7
    breaker_attempts_min: Positive = 20
    breaker_window_s: Seconds = 60.0
    #: How long it stays open after 0, 1, … failed probes; none is longer than the largest delay topic.
    breaker_open_s: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (5.0, 30.0, 120.0, 480.0, 1_800.0)
    #: An endpoint that has failed for this long without one success is disabled.
    disable_after_s: Seconds = 5 * 86_400.0

    #: FIFO endpoints: bytes of events read ahead for all of them together, and the least pause between attempts at an event for which an
    #: endpoint waits although its schedule is used up.
    fifo_bytes_max: Positive = 67_108_864
    fifo_blocked_pause_s: Seconds = 600.0

    #: Deliveries of replays under way at once in a worker, of `concurrency` and `slow_concurrency`: what is new keeps the rest.
    replay_concurrency: Positive = 16

    commit_interval_s: Seconds = 0.5
    #: On a stop signal, and when a partition moves to another worker, attempts under way get this long. Those that take longer are made
    #: again by the next owner. Below what kills the process (10 s of most supervisors).
    shutdown_timeout_s: Seconds = 8.0
    #: The journal is remembered (and re-read on assignment) at least this far back; longer than any pause a process survives.
    journal_memory_s: Seconds = 600.0
    #: http, local names, and every address and port. Only for development and tests; the egress guard refuses them otherwise.
    allow_insecure_endpoints: bool = False

    # The egress guard (docs/operating/egress.md).
    #: Ports that webhooks may be sent to.
    egress_ports: tuple[Annotated[int, Field(gt=0, le=65535)], ...] = (443, 8443)
    #: Networks that may be reached although they are private. With any, names of a local network are taken too: the addresses decide.
    egress_allowed_networks: tuple[IPvAnyNetwork, ...] = ()
    #: Networks that may not be reached although they are public, like the addresses under which this installation itself is reached.
    egress_denied_networks: tuple[IPvAnyNetwork, ...] = ()
    #: http://[user:password@]host:port of a forward proxy for all webhooks. It gets addresses, never names: they are checked here.
    egress_proxy: SecretStr | None = None
    #: PEM file of the certificate authorities that receivers are verified against, instead of the system's.
    egress_ca_file: Path | None = None
    #: From a name to its addresses. Part of the attempt's time, as is connecting to each of them, TLS included.
    dns_timeout_s: Seconds = 3.0
    connect_timeout_s: Seconds = 10.0


class RebuildSettings(_Section):
    #: Records that go into the shadow tables in one transaction.
    batch_records_max: Positive = 20_000
    #: Records still to be folded with which the swap may begin: live folds and acks wait while they are.
    swap_records_max: Positive = 2_000
    #: The swap lets go of every lock and tries again when it waited this long for one: readers queue behind it. Below Postgres's
    #: `deadlock_timeout` (1 s), so that no reader is ever chosen to end a deadlock.
    lock_timeout_s: Annotated[float, Field(gt=0, lt=1)] = 0.3
    #: How long the swap is tried.
    swap_timeout_s: Seconds = 60.0
    #: Silence of the broker after which the rebuild gives up, to be gone on with later.
    stall_timeout_s: Seconds = 30.0


class ReplaySettings(_Section):
    #: Deliveries a second to each endpoint of a replay that is asked for without a rate, and the most that may be asked for.
    rate_per_s: Seconds = 50.0
    rate_per_s_max: Seconds = 1_000.0
    #: How long the API reads the log for one dry run before it refuses; the command line takes all the time it needs.
    count_timeout_s: Seconds = 30.0


class RetentionSettings(_Section):
    """Days that events stay readable, by the organization's plan, where the organization has no number of its own. 0: for ever."""

    free_days: Days = 0
    starter_days: Days = 0
    pro_days: Days = 0
    enterprise_days: Days = 0
    #: Events that one record takes: acknowledgements of a partition wait while its rows are deleted.
    step_events_max: Positive = 2_000
    #: How long the command waits for the fold of one such record.
    step_timeout_s: Seconds = 60.0


class OperatingSettings(_Section):
    """Of the tools that look at a system: explain, doctor, dead and rejected."""

    #: Records of the log that one command reads at most; it says so where it stopped.
    read_records_max: Positive = 10_000_000
    #: Silence of the broker after which such a command gives up.
    stall_timeout_s: Seconds = 10.0
    #: A check of the doctor that takes longer is given up; the others go on.
    check_timeout_s: Seconds = 10.0
    #: Records that a group has not taken and clocks that differ by more than this are worth a warning.
    lag_records_max: Positive = 10_000
    clock_skew_s: Seconds = 1.0
    #: An id's time and its record's time may differ by this: clocks of two machines, and the way to the broker.
    clock_slack_s: Seconds = 60.0


class TelemetrySettings(_Section):
    log_level: str = "info"
    #: One wide JSON line per event and stage. Without it only lines about the process itself are written.
    log_events: bool = True
    #: Port of this process's /metrics; 0 takes a free one, absent serves none (the API serves its own).
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    metrics_host: str = "127.0.0.1"


class Settings(BaseSettings):
    """Everything a process needs to know. Raises `pydantic.ValidationError` naming the variable at fault."""

    model_config = SettingsConfigDict(env_prefix="TRIGGERS_", env_nested_delimiter="__", frozen=True, extra="ignore")

    #: development (local stack, http endpoints allowed) or production.
    environment: str = "development"
    #: Master keys, newest first, each `<id>:<base64 of 32 bytes>`: the first encrypts, all decrypt, so a key rotates without downtime.
    master_keys: SecretStr = SecretStr("")
    #: How long a process waits for its servers at start before it gives up, naming the one that is missing.
    startup_timeout_s: Seconds = 60.0

    kafka: KafkaSettings = KafkaSettings()
    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    api: ApiSettings = ApiSettings()
    access: AccessSettings = AccessSettings()
    ingest: IngestSettings = IngestSettings()
    processor: ProcessorSettings = ProcessorSettings()
    delivery: DeliverySettings = DeliverySettings()
    rebuild: RebuildSettings = RebuildSettings()
    replay: ReplaySettings = ReplaySettings()
    retention: RetentionSettings = RetentionSettings()
    operating: OperatingSettings = OperatingSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def docs_enabled(self) -> bool:
        """Whether /docs is served: as asked, else everywhere but in production."""
        return self.environment != "production" if self.api.docs_enabled is None else self.api.docs_enabled
