// Spans as an application makes them, with OpenTelemetry's SDK for JavaScript, sent over OTLP/HTTP in JSON.
//
//   node sender.mjs URL none|gzip NUMBER
//
// Sends a trace that has a value in every field, and NUMBER further spans. Prints what it sent as JSON, from its own record of its spans and not
// from its encoder, with how each export ended.

import { SpanKind, SpanStatusCode, TraceFlags, context, createTraceState, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AlwaysOnSampler, BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [url, compression, number] = process.argv.slice(2);

// One promise an export, for how it ended: a flush does not wait for one that was under way.
const exports = [];
const exporter = new OTLPTraceExporter({ url, compression, timeoutMillis: 20_000 });
const witness = {
  export(spans, done) {
    const ended = new Promise((resolve) => exporter.export(spans, resolve));
    exports.push(ended.then(({ code, error }) => ({ code, error: error ? `${error.code ?? ""} ${error.message}` : null })));
    ended.then(done);
  },
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
};

const ended = [];
const record = {
  onStart() {},
  onEnd: (span) => ended.push(span),
  forceFlush: () => Promise.resolve(),
  shutdown: () => Promise.resolve(),
};

const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "kiosk", replicas: 3, zones: ["a", "b"] }),
  sampler: new AlwaysOnSampler(),
  spanLimits: { attributeCountLimit: 32, eventCountLimit: 4 },
  spanProcessors: [record, new BatchSpanProcessor(witness)],
});
const tracer = provider.getTracer("kiosk.checkout", "2.1.0");

// [seconds, nanoseconds], which is exact; a number of milliseconds is not.
const at = (nanoseconds) => [1_700_000_000, nanoseconds];

const remote = {
  traceId: "0af7651916cd43dd8448eb211c80319c",
  spanId: "00f067aa0ba902b7",
  traceFlags: TraceFlags.SAMPLED,
  isRemote: true,
  traceState: createTraceState("vendor=a:1,other=b"),
};
const elsewhere = { traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "53995c3f42cd8ad8", traceFlags: TraceFlags.NONE };
const root = trace.setSpanContext(context.active(), remote);

const parent = tracer.startSpan(
  "POST /orders/{id}",
  {
    kind: SpanKind.SERVER,
    startTime: at(1),
    links: [{ context: elsewhere, attributes: { why: "retry", attempt: 2 } }, { context: remote }],
    attributes: {
      text: "straße 🦀 \u2028 \" \\",
      empty: "",
      yes: true,
      no: false,
      zero: 0,
      negative: -5,
      large: 2 ** 53 - 1,
      half: -0.5,
      tiny: 5e-324,
      texts: ["a", "", "c"],
      numbers: [1, -2, 3],
      fractions: [0.25, 1.5e-300],
      switches: [true, false],
      nothing: [],
    },
  },
  root,
);
parent.addEvent("cache miss", { key: "user:7", tries: [1, 2] }, at(2));
parent.addEvent("bare", at(3));
parent.setStatus({ code: SpanStatusCode.ERROR, message: "card declined" });
const child = tracer.startSpan("charge", { kind: SpanKind.CLIENT, startTime: at(4) }, trace.setSpan(root, parent));
child.recordException(new Error("no funds"), at(5));
child.setStatus({ code: SpanStatusCode.OK });
child.end([1_700_000_001, 0]);
parent.end([1_700_000_002, 7]);

const crowded = tracer.startSpan("crowded", { startTime: at(0) });
for (let n = 0; n < 40; n += 1) crowded.setAttribute(`attribute.${n}`, n);
for (let n = 0; n < 6; n += 1) crowded.addEvent(`event ${n}`, at(n));
crowded.end(at(100));
for (const kind of ["INTERNAL", "PRODUCER", "CONSUMER"]) {
  tracer.startSpan(`of kind ${kind}`, { kind: SpanKind[kind], startTime: at(0) }).end(at(2_000_001));
}
for (let n = 0; n < Number(number); n += 1) {
  tracer.startSpan("further", { attributes: { n, text: "again and again ".repeat(8) }, startTime: at(n) }).end(at(2 * n));
}

await provider.forceFlush().catch(() => {});
const results = await Promise.all(exports);

const nanoseconds = ([seconds, rest]) => (BigInt(seconds) * 1_000_000_000n + BigInt(rest)).toString();
const sent = ended.map((span) => ({
  resource: span.resource.attributes,
  scope: { name: span.instrumentationScope.name, version: span.instrumentationScope.version },
  traceId: span.spanContext().traceId,
  spanId: span.spanContext().spanId,
  parentSpanId: span.parentSpanContext?.spanId ?? "",
  traceState: span.spanContext().traceState?.serialize() ?? "",
  name: span.name,
  // The API counts kinds from 0, OTLP from 1.
  kind: span.kind + 1,
  start: nanoseconds(span.startTime),
  end: nanoseconds(span.endTime),
  attributes: span.attributes,
  droppedAttributes: span.droppedAttributesCount,
  events: span.events.map(({ name, time, attributes }) => ({ name, time: nanoseconds(time), attributes: attributes ?? {} })),
  droppedEvents: span.droppedEventsCount,
  links: span.links.map(({ context: of, attributes }) => ({ traceId: of.traceId, spanId: of.spanId, attributes: attributes ?? {} })),
  droppedLinks: span.droppedLinksCount,
  status: { code: span.status.code, message: span.status.message ?? "" },
}));
process.stdout.write(JSON.stringify({ results, sent }), () => process.exit(0));
