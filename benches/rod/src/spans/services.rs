//! The services that the spans pretend to come from, and what they do.

/// One operation of a service: name, kind as OTLP numbers it, its usual duration, its fixed attributes.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) kind: u64,
    pub(super) usual_us: u64,
    pub(super) attributes: [(&'static str, &'static str); 3],
}

const fn operation(
    name: &'static str,
    kind: u64,
    usual_us: u64,
    attributes: [(&'static str, &'static str); 3],
) -> Operation {
    Operation { name, kind, usual_us, attributes }
}

const INTERNAL: u64 = 1;
pub(super) const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

/// (name, version, operations) of each service.
pub(super) const SERVICES: [(&str, &str, [Operation; 4]); 3] = [
    (
        "stream-gateway",
        "2.4.1",
        [
            operation(
                "connection_start",
                SERVER,
                900,
                [
                    ("network.transport", "tcp"),
                    ("network.peer.address", "10.42.7.113"),
                    ("server.address", "edge-3.example.net"),
                ],
            ),
            operation(
                "protocol_negotiation",
                INTERNAL,
                2_500,
                [
                    ("network.protocol.name", "h2"),
                    ("tls.protocol.version", "1.3"),
                    ("server.address", "edge-3.example.net"),
                ],
            ),
            operation(
                "frame_processing",
                INTERNAL,
                120,
                [
                    ("stream.frame.kind", "video-delta"),
                    ("stream.codec", "av1"),
                    ("thread.name", "frame-worker-2"),
                ],
            ),
            operation(
                "multipath_routing",
                CLIENT,
                4_000,
                [
                    ("route.path", "fra-ams-lhr"),
                    ("network.peer.address", "10.42.7.113"),
                    ("route.policy", "least-latency"),
                ],
            ),
        ],
    ),
    (
        "order-service",
        "1.18.0",
        [
            operation(
                "GET /api/v1/orders/{id}",
                SERVER,
                6_000,
                [
                    ("http.request.method", "GET"),
                    ("http.route", "/api/v1/orders/{id}"),
                    ("server.address", "orders.example.net"),
                ],
            ),
            operation(
                "POST /api/v1/orders",
                SERVER,
                22_000,
                [
                    ("http.request.method", "POST"),
                    ("http.route", "/api/v1/orders"),
                    ("server.address", "orders.example.net"),
                ],
            ),
            operation(
                "SELECT orders",
                CLIENT,
                1_400,
                [
                    ("db.system.name", "postgresql"),
                    ("db.collection.name", "orders"),
                    ("db.operation.name", "SELECT"),
                ],
            ),
            operation(
                "orders publish",
                PRODUCER,
                700,
                [
                    ("messaging.system", "nats"),
                    ("messaging.destination.name", "orders.created"),
                    ("messaging.operation.type", "send"),
                ],
            ),
        ],
    ),
    (
        "payment-worker",
        "0.9.7",
        [
            operation(
                "orders process",
                CONSUMER,
                35_000,
                [
                    ("messaging.system", "nats"),
                    ("messaging.destination.name", "orders.created"),
                    ("messaging.operation.type", "process"),
                ],
            ),
            operation(
                "charge_card",
                INTERNAL,
                90_000,
                [
                    ("payment.provider", "example-pay"),
                    ("payment.currency", "EUR"),
                    ("thread.name", "payment-pool-4"),
                ],
            ),
            operation(
                "POST /v2/charges",
                CLIENT,
                80_000,
                [
                    ("http.request.method", "POST"),
                    ("url.template", "/v2/charges"),
                    ("server.address", "api.pay.example.com"),
                ],
            ),
            operation(
                "UPDATE payments",
                CLIENT,
                2_100,
                [
                    ("db.system.name", "postgresql"),
                    ("db.collection.name", "payments"),
                    ("db.operation.name", "UPDATE"),
                ],
            ),
        ],
    ),
];
