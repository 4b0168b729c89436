use std::{collections::HashMap, time::Duration};

use super::*;
use crate::export::{Backoff, DestinationConfig, Protocol};

#[test]
fn the_defaults_are_those_of_a_destination() {
    let destination = OtlpConfig::default().destination("default").unwrap();
    assert_eq!(destination, DestinationConfig::new("default", "http://localhost:4317"));
}

#[test]
fn every_setting_becomes_one_of_the_destination() {
    let otlp = OtlpConfig {
        endpoint: "http://host:1".to_owned(),
        protocol: OtlpProtocol::HttpProtobuf,
        timeout: Duration::from_secs(3),
        headers: HashMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
        max_batch_size: 100,
        batch_timeout: Duration::from_secs(5),
        max_retries: 3,
        retry_backoff: Duration::from_secs(60),
        compression: true,
        use_tls: false,
    };
    let (second, usual) = (Duration::from_secs(60), DestinationConfig::new("archive", "http://host:1"));
    let expected = DestinationConfig {
        protocol: Protocol::HttpProtobuf,
        timeout: Duration::from_secs(3),
        headers: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
        gzip: true,
        min_batch_spans: 100,
        max_batch_spans: 100,
        max_delay: Duration::from_secs(5),
        backoff: Backoff { initial: second, cap: second, ..usual.backoff },
        max_retries: Some(3),
        ..usual
    };
    assert_eq!(otlp.destination("archive"), Ok(expected));
}

#[test]
fn wrong_settings_of_a_destination_are_named() {
    let error = |otlp: OtlpConfig| otlp.destination("default").unwrap_err().to_string();
    assert_eq!(
        error(OtlpConfig { max_batch_size: 0, endpoint: "localhost".to_owned(), ..OtlpConfig::default() }),
        "destination \"default\": endpoint: \"localhost\" must be http://host:port, https://host:port or unix:/path; \
         max_batch_spans: 0 is not within 1 and 65536; min_batch_spans: 0 is not within 1 and 0"
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = OtlpConfig { endpoint: "localhost".to_owned(), ..OtlpConfig::default() };
    assert_eq!(
        BridgeError::Variable(wrong.destination("default").unwrap_err()).to_string(),
        "OTEL_EXPORTER_OTLP_ENDPOINT: destination \"default\": endpoint: \"localhost\" must be http://host:port, https://host:port or unix:/path"
    );
}

#[test]
fn headers_are_never_shown() {
    let headers = HashMap::from([("authorization".to_owned(), "secret".to_owned())]);
    let shown = format!("{:?}", OtlpConfig { headers, ..OtlpConfig::default() });
    assert!(shown.contains("authorization") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn wrong_settings_of_a_bridge_are_named() {
    let usual = TelemetryBridgeConfig::default;
    for (config, text) in [
        (
            TelemetryBridgeConfig { poll_interval: Duration::ZERO, ..usual() },
            "poll_interval is 0ns: must be from 10ms to 3600s",
        ),
        (
            TelemetryBridgeConfig { service_name: String::new(), ..usual() },
            "service_name has 0 bytes: must have 1 to 255",
        ),
    ] {
        assert_eq!(TelemetryBridge::new(config).await.unwrap_err().to_string(), text);
    }
    let otlp = OtlpConfig { max_batch_size: 0, ..OtlpConfig::default() };
    assert!(TelemetryBridge::with_otlp(usual(), &otlp).await.is_err());
    // What is not used need not be right.
    let off = TelemetryBridgeConfig { otlp_enabled: false, ..usual() };
    assert!(TelemetryBridge::with_otlp(off, &otlp).await.is_ok());
}

#[test]
fn a_bridge_has_the_defaults_of_the_design() {
    let TelemetryBridgeConfig { poll_interval, otlp_enabled, prometheus_enabled, service_name } =
        TelemetryBridgeConfig::default();
    assert_eq!((poll_interval, otlp_enabled, prometheus_enabled), (Duration::from_secs(5), true, true));
    assert_eq!(service_name, "nyx-daemon");
}

#[tokio::test]
async fn a_bridge_that_was_not_started_has_done_nothing_and_stops() {
    let mut bridge =
        TelemetryBridge::with_otlp(TelemetryBridgeConfig::default(), &OtlpConfig::default()).await.unwrap();
    assert_eq!(bridge.stats().await, BridgeStats::default());
    bridge.shutdown().await.unwrap();
}
