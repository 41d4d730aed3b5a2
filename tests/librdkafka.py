"""What librdkafka offers for tests and confluent-kafka does not."""

from __future__ import annotations

import ctypes

from confluent_kafka import KafkaError, Producer, cimpl


def fail_for_good(producer: Producer) -> None:
    """Raise a fatal error in an idempotent producer, as a broken sequence does: `rd_kafka_test_fatal_error` of rdkafka.h."""
    fail = ctypes.CDLL(cimpl.__file__).rd_kafka_test_fatal_error
    fail.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    # The handle is the first field of the extension's object (`Handle` in confluent_kafka.h).
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    assert fail(handle, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"on purpose") == 0
