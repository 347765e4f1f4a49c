"""Prometheus metrics of the exchange, shared by all worker processes through files in the data directory."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


T = TypeVar("T", bound=Counter | Gauge | Histogram, covariant=True)


class Labelled(Protocol[T]):
    """A metric that is told apart by labels."""

    def labels(self, *values: str) -> T:
        """The metric under these values."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """requests: by method, shape of the path and status; seconds: latency by method and shape; messages: HL7 v2 by source and outcome;

    received, waiting: per source the time of its latest message (alert on a silent feed) and the age of its oldest unfinished one; mllp: what happened
    at the MLLP door, by kind ('frames', 'closed:idle').
    """

    requests: Labelled[Counter]
    seconds: Labelled[Histogram]
    messages: Labelled[Counter]
    received: Labelled[Gauge]
    waiting: Labelled[Gauge]
    mllp: Labelled[Counter]


@dataclass(frozen=True, slots=True, eq=False)
class Of(Generic[T]):
    """A metric as one tenant writes it: with its name as the first label."""

    metric: Labelled[T]
    tenant: str

    def labels(self, *values: str) -> T:
        """The tenant's metric under these values."""
        return self.metric.labels(self.tenant, *values)


def fresh_folder(data_dir: Path) -> Path:
    """An empty folder for the workers of this parent process; those that dead parents left are removed."""
    root = data_dir / "metrics"
    for left in root.glob("*"):
        if left.name.isdigit() and not _alive(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / str(os.getpid())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def open_metrics(folder: Path) -> Metrics:
    """The process's metrics; `folder` is shared by the workers of one parent (`fresh_folder`)."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue()
    return _made()


def for_tenants() -> Metrics:
    """The same metrics with a first label `tenant`, after `open_metrics`; the exchange's own stay without it, as they are where no tenant is."""
    return _made("tenant")


def of_tenant(metrics: Metrics, tenant: str) -> Metrics:
    """One tenant's part of `for_tenants`."""
    feed = Of(metrics.messages, tenant), Of(metrics.received, tenant), Of(metrics.waiting, tenant)
    return Metrics(Of(metrics.requests, tenant), Of(metrics.seconds, tenant), *feed, Of(metrics.mllp, tenant))


def _made(*more: str) -> Metrics:
    registry = CollectorRegistry()
    return Metrics(
        Counter("fhir_requests_total", "FHIR requests", (*more, "method", "shape", "status"), registry=registry),
        Histogram("fhir_request_seconds", "Latency of FHIR requests", (*more, "method", "shape"), buckets=BUCKETS, registry=registry),
        Counter("hl7v2_messages_total", "HL7 v2 messages", (*more, "source", "outcome"), registry=registry),
        _gauge("hl7v2_last_received_seconds", "Time of the latest HL7 v2 message (Unix)", more, "max", registry),
        _gauge("hl7v2_queue_seconds", "Age of the oldest HL7 v2 message that is not finished", more, "mostrecent", registry),
        Counter("mllp_events_total", "What happened at the MLLP door", (*more, "event"), registry=registry),
    )


def _gauge(name: str, text: str, more: tuple[str, ...], mode: Literal["max", "mostrecent"], registry: CollectorRegistry) -> Gauge:
    """A gauge per HL7 v2 source, of which all workers' values become one by `mode`."""
    return Gauge(name, text, (*more, "source"), registry=registry, multiprocess_mode=mode)


def exposition() -> bytes:
    """All workers' metrics in the Prometheus text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
