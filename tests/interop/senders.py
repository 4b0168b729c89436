"""Spans as an application makes them, with OpenTelemetry's SDK for Python."""

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from destination import spans_of

SCHEMA = "https://opentelemetry.io/schemas/1.40.0"
SECOND = 1_000_000_000


class Witness:
    """An exporter that passes on, and notes how each of its exports ended."""

    def __init__(self, exporter):
        self.exporter = exporter
        self.results = []

    def export(self, spans):
        result = self.exporter.export(spans)
        self.results.append(result)
        return result

    def succeeded(self):
        return bool(self.results) and set(self.results) == {SpanExportResult.SUCCESS}

    def shutdown(self):
        self.exporter.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self.exporter.force_flush(timeout_millis)


class Application:
    """A tracer provider that sends with `exporter`, and remembers what it sent."""

    def __init__(self, exporter, service="shop", **attributes):
        self.witness = Witness(exporter)
        self.memory = InMemorySpanExporter()
        resource = {"service.name": service, **attributes}
        self.provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(resource, SCHEMA),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=32, max_events=4, max_links=4),
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.provider.add_span_processor(BatchSpanProcessor(self.witness))

    def tracer(self, name="shop.checkout", version="2.1.0"):
        return self.provider.get_tracer(name, version, SCHEMA, {"team": "payments", "tier": 1})

    def finished(self):
        return self.memory.get_finished_spans()

    def sent(self):
        """What it sent, as OTLP has it."""
        return spans_of(encode_spans(self.finished()))

    def flush(self):
        """Sends what is there, and says that every export was acknowledged."""
        assert self.provider.force_flush(30_000)
        assert self.witness.succeeded(), self.witness.results

    def end(self):
        self.provider.shutdown()


def one_of_everything(tracer):
    """A trace that has a value in every field that OTLP has for a span."""
    remote = SpanContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C,
        span_id=0x00F067AA0BA902B7,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState([("vendor", "a:1"), ("other", "b")]),
    )
    elsewhere = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x53995C3F42CD8AD8, is_remote=False)
    parent = tracer.start_span(
        "POST /orders/{id}",
        context=set_span_in_context(NonRecordingSpan(remote)),
        kind=SpanKind.SERVER,
        links=[Link(elsewhere, {"why": "retry", "attempt": 2}), Link(remote)],
        start_time=1_700_000_000 * SECOND + 1,
        attributes={
            "text": "straße 🦀",
            "empty": "",
            "yes": True,
            "no": False,
            "zero": 0,
            "least": -(2**63),
            "greatest": 2**63 - 1,
            "half": -0.5,
            "tiny": 5e-324,
            "infinite": float("inf"),
            "bytes": b"\x00\xff\x80",
            "texts": ["a", "", "c"],
            "numbers": [1, -2, 3],
            "fractions": [0.25, 1e300],
            "switches": [True, False],
            "nothing": [],
            "tree": {"leaf": 1, "branch": {"list": [1, "two", 3.0]}},
        },
    )
    parent.add_event("cache miss", {"key": "user:7", "tries": [1, 2]}, timestamp=1_700_000_000 * SECOND + 2)
    parent.add_event("bare", timestamp=1_700_000_000 * SECOND + 3)
    parent.set_status(Status(StatusCode.ERROR, "card declined"))
    child = tracer.start_span(
        "charge", context=set_span_in_context(parent), kind=SpanKind.CLIENT, start_time=1_700_000_000 * SECOND + 4
    )
    child.record_exception(ValueError("no funds"), timestamp=1_700_000_000 * SECOND + 5)
    child.set_status(StatusCode.OK)
    child.end(1_700_000_001 * SECOND)
    parent.end(1_700_000_002 * SECOND + 7)
    # Beyond the SDK's limits, so that it counts what it dropped.
    crowded = tracer.start_span("crowded", attributes={f"attribute.{number}": number for number in range(40)})
    for number in range(6):
        crowded.add_event(f"event {number}")
    crowded.end()
    for kind in (SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER):
        tracer.start_span(f"of kind {kind.name}", kind=kind).end()
