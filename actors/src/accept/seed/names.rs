//! Names that a network of nodes agrees on.

/// Names of spans.
pub mod span_names {
    /// A connection, from its begin to its end.
    pub const CONNECTION_START: &str = "connection_start";
    /// The end of a connection.
    pub const CONNECTION_END: &str = "connection_end";
    /// A packet that was processed.
    pub const PACKET_PROCESSING: &str = "packet_processing";
    /// A decision of the rate limiter.
    pub const RATE_LIMITING: &str = "rate_limiting";
    /// The choice of a path among several.
    pub const MULTIPATH_ROUTING: &str = "multipath_routing";
    /// A look at the bandwidth.
    pub const BANDWIDTH_MONITORING: &str = "bandwidth_monitoring";
    /// Bytes that went over a connection within a time.
    pub const BANDWIDTH_USAGE: &str = "bandwidth_usage";
    /// A check of security.
    pub const SECURITY_CHECK: &str = "security_check";
    /// The agreement on a protocol's version.
    pub const PROTOCOL_NEGOTIATION: &str = "protocol_negotiation";
    /// A frame that was processed.
    pub const FRAME_PROCESSING: &str = "frame_processing";
}

/// Keys of attributes.
pub mod attribute_names {
    /// The connection's number, in decimal.
    pub const CONNECTION_ID: &str = "connection.id";
    /// A packet's size in bytes.
    pub const PACKET_SIZE: &str = "packet.size";
    /// Bytes that went over a connection.
    pub const BANDWIDTH_BYTES: &str = "bandwidth.bytes";
    /// A duration in milliseconds.
    pub const DURATION_MS: &str = "duration.ms";
    /// The number or name of an error.
    pub const ERROR_CODE: &str = "error.code";
    /// An error in words.
    pub const ERROR_MESSAGE: &str = "error.message";
    /// Whether a rate limit was exceeded.
    pub const RATE_LIMIT_EXCEEDED: &str = "rate_limit.exceeded";
    /// What was violated.
    pub const SECURITY_VIOLATION: &str = "security.violation";
    /// The protocol's version.
    pub const PROTOCOL_VERSION: &str = "protocol.version";
}
