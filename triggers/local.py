"""The whole system on this machine: `triggers dev` and `triggers smoke`."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from runtime import telemetry
from runtime.settings import TelemetrySettings
from triggers.devstack.ports import free_ports, is_free
from triggers.devstack.stack import Stack
from triggers.provision import make_endpoint, make_tenant
from triggers.receiver import Received, Receiver
from triggers.system import System, until

_STEP_TIMEOUT_S: Final = 60.0
_SAMPLE_PAUSE_S: Final = 5.0
_SAMPLES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("order.created", {"order": 17, "items": [{"sku": "A-1", "quantity": 2}]}),
    ("order.paid", {"order": 17, "amount": "20.50", "currency": "EUR"}),
    ("order.shipped", {"order": 17, "carrier": "by bike"}),
)


class Stopped(Exception):
    """Ctrl-C or SIGTERM while something was being waited for."""


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """SIGTERM and Ctrl-C set the event and interrupt whatever is being waited for, so that everything is stopped on the way out."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()
        raise Stopped

    saved = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _environment(stack: Stack, port: int, more: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRIGGERS_")}
    return {**ours, **stack.settings_env(), "TRIGGERS_API__PORT": str(port), **more}


def run_dev(state: Path, *, samples: bool, port: int) -> None:
    """In the foreground until Ctrl-C or SIGTERM. Whatever ends it, nothing is left running."""
    began_s = time.monotonic()
    telemetry.configure("dev", TelemetrySettings(log_level="warning"))

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began_s:6.1f} s] {line}", flush=True)

    with ExitStack() as running:
        running.callback(say, "stopped")
        try:
            with _stop_signals() as stop:
                stack = Stack(state, progress=say)
                running.callback(stack.stop)
                say("starting Kafka, PostgreSQL and Redis ...")
                stack.start()
                api_port = port if port == 0 or is_free(port) else 0
                if api_port != port:
                    say(f"port {port} is taken, another one is used")
                system = System(_environment(stack, api_port or free_ports(1)[0], {}), state / "logs", announce=say)
                running.callback(system.stop)
                system.prepare()
                say("starting API, processors and delivery ...")
                system.start()
                system.wait_ready()
                demo = _demo(system, stack.state_dir)
                _explain(say, system, demo, stack.state_dir)
                if samples:
                    _send_samples(say, system, demo, running, stop)
                else:
                    stop.wait()
        except Stopped:
            say("stopping ...")
        finally:
            _ignore_signals()  # stopping takes moments and must not be interrupted half-way


def _demo(system: System, state: Path) -> dict[str, str]:
    """The demo organization and key of this state folder, made once. The key is kept beside the data it opens."""
    kept = state / "demo.json"
    if kept.exists():
        found: dict[str, str] = json.loads(kept.read_text())
        return found
    tenant = make_tenant(system.settings, "Demo")
    made = {"organization": tenant.organization, "key": tenant.key}
    kept.touch(mode=0o600)
    kept.write_text(json.dumps(made) + "\n")
    return made


def _explain(say: Callable[[str], None], system: System, demo: Mapping[str, str], state: Path) -> None:
    say("ready")
    print(
        f"""
  API        {system.url}         documentation {system.url}/docs
  health     {system.url}/health/ready
  demo key   {demo["key"]}
  logs       {state / "logs"}

  curl -H 'X-API-Key: {demo["key"]}' -H 'Content-Type: application/json' \\
       -d '{{"type":"hello.world","payload":{{"n":1}}}}' {system.url}/events
  curl -H 'X-API-Key: {demo["key"]}' {system.url}/inbox

  Kill any process with -9: it comes back, and nothing is lost or doubled. Ctrl-C stops everything.
""",
        flush=True,
    )


def _send_samples(say: Callable[[str], None], system: System, demo: Mapping[str, str], running: ExitStack, stop: threading.Event) -> None:
    """Sample events, and a receiver that shows them arrive, until told to stop."""
    sent_at: dict[str, float] = {}

    def show(received: Received) -> None:
        event_id = received.headers.get("webhook-id", "?")
        took = f" {1000 * (received.at_s - sent_at[event_id]):.0f} ms after it was posted" if event_id in sent_at else ""
        proof = "signature verified" if received.verified else "SIGNATURE NOT VERIFIED"
        say(f"delivered  {event_id}{took}, {proof}")

    receiver = running.enter_context(_demo_receiver(system, show))
    say(f"webhooks of the demo organization go to {receiver.url()}")
    run = f"{time.time():.0f}"
    with httpx.Client(base_url=system.url, headers={"X-API-Key": demo["key"]}, timeout=10) as client:
        number = 0
        while not stop.is_set():
            kind, payload = _SAMPLES[number % len(_SAMPLES)]
            try:
                before = time.time()
                answer = client.post("/events", json={"type": kind, "payload": payload, "idempotency_key": f"sample-{run}-{number}"})
                if answer.status_code == httpx.codes.CREATED:
                    sent_at[answer.json()["id"]] = before
                    say(f"posted     {answer.json()['id']} {kind}: 201")
                    number += 1
                else:
                    say(f"posted     {kind}: {answer.status_code} {answer.json().get('detail')}")
            except httpx.TransportError as error:
                say(f"posted     {kind}: no answer ({error!r}); asked again with the same idempotency key")
            stop.wait(_SAMPLE_PAUSE_S if number >= len(_SAMPLES) else 0.5)


@contextmanager
def _demo_receiver(system: System, show: Callable[[Received], None]) -> Iterator[Receiver]:
    """A receiver at the address that this state folder's demo endpoint was registered with; registered anew if it is taken."""
    kept = Path(system.environment["TRIGGERS_PROCESSOR__DATA_DIR"]).parent / "demo.json"
    demo: dict[str, Any] = json.loads(kept.read_text())
    port = demo.get("receiver_port", 0)
    with Receiver(port if port and is_free(port) else 0, on_received=show) as receiver:
        if demo.get("receiver_port") != receiver.port:
            _, secret = make_endpoint(system.settings, demo["organization"], receiver.url())
            demo |= {"receiver_port": receiver.port, "secret": secret}
            kept.write_text(json.dumps(demo) + "\n")
        receiver.secrets["/webhooks"] = demo["secret"]
        yield receiver


def run_smoke() -> None:
    """One event across every hop of a system of its own, a line per hop. Raises whatever a hop fails with."""
    began_s = time.monotonic()
    telemetry.configure("smoke", TelemetrySettings(log_level="warning"))

    def hop(line: str) -> None:
        print(f"ok  {time.monotonic() - began_s:6.2f} s  {line}", flush=True)

    with ExitStack() as running:
        state = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="triggers-smoke-")))
        stack = Stack(state, progress=lambda line: print(f"    {line}", flush=True))
        running.callback(stack.destroy)
        try:
            with _stop_signals():
                stack.start()
                hop("Kafka, PostgreSQL and Redis answer")
                system = System(_environment(stack, free_ports(1)[0], {}), state / "logs")
                running.callback(system.stop)
                system.prepare()
                hop("topics and tables are made")
                system.start()
                system.wait_ready()
                hop("the API is ready")
                _one_event(system, running.enter_context(Receiver()), hop)
        finally:
            _ignore_signals()


def _one_event(system: System, receiver: Receiver, hop: Callable[[str], None]) -> None:
    tenant = make_tenant(system.settings, "Smoke")
    key = tenant.key
    _, receiver.secrets["/webhooks"] = make_endpoint(system.settings, tenant.organization, receiver.url())
    hop("an organization, a key and an endpoint are made")
    body = b'{"type":"smoke.test","idempotency_key":"smoke-1","payload":{ "n" : 1.0 }}'
    with httpx.Client(base_url=system.url, headers={"X-API-Key": key, "Content-Type": "application/json"}, timeout=40) as client:
        posted = client.post("/events", content=body)
        _expect(posted, 201)
        event_id = posted.json()["id"]
        hop(f"posted and in the log: {event_id}")
        again = client.post("/events", content=body)
        _expect(again, 409)
        if again.json()["id"] != event_id:
            raise RuntimeError(f"the duplicate names {again.json()['id']}, not {event_id}")
        hop("posted again: answered 409 with the same id")
        until(lambda: client.get(f"/events/{event_id}").json().get("status") == "accepted", _STEP_TIMEOUT_S, "dedup and projection")
        hop("deduplicated and in the inbox")
        page = client.get("/inbox")
        _expect(page, 200)
        if b'"payload":{ "n" : 1.0 }' not in page.content:
            raise RuntimeError(f"the inbox does not hold the payload byte for byte: {page.text}")
        hop("read from the inbox, byte for byte")
        until(lambda: bool(receiver.of()), _STEP_TIMEOUT_S, "the webhook")
        if not receiver.of()[0].verified or b'"data":{ "n" : 1.0 }' not in receiver.of()[0].body:
            raise RuntimeError("the webhook's signature or body is not right")
        hop("received as a webhook, signature verified")
        acked = client.post("/inbox/ack", json={"ids": [event_id]})
        _expect(acked, 200)
        if client.get("/inbox").json()["events"] or acked.json()["acknowledged"] != 1:
            raise RuntimeError(f"the acknowledgement did not hold: {acked.text}")
        hop("acknowledged and gone from the unacked inbox")
        until(
            lambda: any(d["attempts"] for d in client.get(f"/events/{event_id}").json()["deliveries"]),
            _STEP_TIMEOUT_S,
            "the journal's fold",
        )
        hop("its delivery is in the event's history")


def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code} instead of {status}: {answer.text}"
        )
