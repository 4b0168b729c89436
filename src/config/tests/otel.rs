//! OpenTelemetry's own variables.

use std::time::Duration;

use nyx_telemetry::export::Protocol;

use super::{load, load_all, loaded, only, variable_refused};

fn otel(variables: &[(&str, &str)]) -> crate::config::Config {
    loaded(&[], variables)
}

#[test]
fn the_variables_of_a_signal_beat_the_general_ones() {
    let config = otel(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2%2C3"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ]);
    let default = &config.export[0];
    assert_eq!(default.endpoint, "http://traces:2");
    assert_eq!(default.timeout, Duration::from_secs(2));
    assert_eq!(default.headers, [("b".to_owned(), "2,3".to_owned())]);
    assert!(default.gzip);
}

#[test]
fn the_batch_processors_settings_are_those_of_the_batch() {
    let config = otel(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "3000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100"),
    ]);
    let default = &config.export[0];
    assert_eq!((default.min_batch_spans, default.max_batch_spans), (100, 100));
    assert_eq!((default.max_delay, default.timeout), (Duration::from_millis(250), Duration::from_secs(3)));
}

#[test]
fn a_queue_of_spans_is_said_to_have_no_effect() {
    let all = load_all(&[], &[("OTEL_BSP_MAX_QUEUE_SIZE", "2048")], &[]).unwrap();
    assert_eq!(
        all.notices,
        ["variable OTEL_BSP_MAX_QUEUE_SIZE has no effect: what waits is bounded in bytes, by log.max_bytes"]
    );
    assert_eq!(all.config, loaded(&[], &[]));
}

#[test]
fn the_resource_has_the_service_and_the_service_name_beats_it() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,host.name=h%2C1,service.version=2");
    let config = otel(&[attributes]);
    assert_eq!(config.telemetry.service_name, "a");
    let rest = [("host.name", "h,1"), ("service.version", "2")];
    assert_eq!(config.telemetry.resource, rest.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(otel(&[attributes, ("OTEL_SERVICE_NAME", "b")]).telemetry.service_name, "b");
}

#[test]
fn a_disabled_sdk_exports_nothing_and_an_enabled_one_changes_nothing() {
    assert_eq!(otel(&[("OTEL_SDK_DISABLED", "TRUE")]).export, []);
    let file = "telemetry.span_export_enabled = false";
    assert!(!loaded(&[file], &[("OTEL_SDK_DISABLED", "false")]).telemetry.span_export_enabled);
    assert_eq!(otel(&[("OTEL_SDK_DISABLED", "false")]), loaded(&[], &[]));
}

#[test]
fn a_sampler_is_a_share_of_the_traces() {
    for (sampler, argument, rate) in [
        ("always_on", "", 1.0),
        ("always_off", "", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("traceidratio", "", 1.0),
        ("parentbased_always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("parentbased_traceidratio", "0.5", 0.5),
    ] {
        let config = otel(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        assert_eq!(config.export[0].sampling_rate, rate, "{sampler} {argument}");
    }
    // Without a sampler its argument is not looked at, after the specification.
    assert_eq!(otel(&[("OTEL_TRACES_SAMPLER_ARG", "endpoint=x")]), loaded(&[], &[]));
}

#[test]
fn an_endpoint_without_a_scheme_has_the_one_that_insecure_says() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    let config = otel(&[endpoint, ("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(config.export[0].endpoint, "http://collector:4317");
    let nowhere = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem");
    let problem =
        only(load(&[], &[endpoint, ("OTEL_EXPORTER_OTLP_INSECURE", "false"), nowhere]).unwrap_err());
    assert_eq!(
        problem,
        "export.default.tls.ca_file (variable OTEL_EXPORTER_OTLP_CERTIFICATE): \"/nowhere/ca.pem\" cannot be read: No such \
         file or directory (os error 2)"
    );
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true");
    let config = otel(&[endpoint, ("OTEL_EXPORTER_OTLP_INSECURE", "false"), of_traces]);
    assert_eq!(config.export[0].endpoint, "http://collector:4317");
    // An endpoint that says it itself is left as it is.
    let config =
        otel(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "false")]);
    assert_eq!(config.export[0].endpoint, "http://c:1");
}

#[test]
fn the_files_of_tls_are_the_destinations() {
    for (kind, key) in
        [("CERTIFICATE", "ca_file"), ("CLIENT_KEY", "key_file"), ("CLIENT_CERTIFICATE", "cert_file")]
    {
        for signal in ["", "TRACES_"] {
            let variable = format!("OTEL_EXPORTER_OTLP_{signal}{kind}");
            assert_eq!(
                variable_refused(&variable, "/a.pem"),
                format!(
                    "export.default.tls.{key} (variable {variable}): \"/a.pem\" must not be set: the endpoint is none of https://"
                )
            );
        }
    }
}

#[test]
fn the_protocol_is_the_destinations_and_an_endpoint_of_traces_has_their_path() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let default = &otel(&[http, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otlp")]).export[0];
    assert_eq!((default.protocol, default.endpoint.as_str()), (Protocol::HttpProtobuf, "http://c:4318/otlp"));
    for (of_traces, endpoint) in [
        ("http://c:4318/v1/traces", "http://c:4318"),
        ("http://c:4318/otlp/v1/traces/", "http://c:4318/otlp"),
        ("http://c:4318/", "http://c:4318"),
        ("http://c:4318", "http://c:4318"),
    ] {
        assert_eq!(
            otel(&[http, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", of_traces)]).export[0].endpoint,
            endpoint
        );
    }
    let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    assert_eq!(otel(&[http, grpc]).export[0].protocol, Protocol::Grpc);
    assert_eq!(
        variable_refused("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift"),
        "export.default.protocol is \"thrift\" (variable OTEL_EXPORTER_OTLP_PROTOCOL): \
         must be \"grpc\" or \"http/protobuf\""
    );
}

#[test]
fn an_empty_variable_counts_as_unset_whatever_it_is() {
    let variables: Vec<_> = crate::config::otel_variables().into_iter().map(|(name, _)| (name, "")).collect();
    let all = load_all(&[], &variables, &[]).unwrap();
    assert_eq!((all.config, all.notices), (loaded(&[], &[]), vec![]));
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_variable() {
    for (name, value, problem) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", " is \"10s\": must be a whole number of milliseconds"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", " is \"-1\": must be a whole number of milliseconds"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", " is \"many\": must be a whole number of spans"),
        ("OTEL_SDK_DISABLED", "1", " is \"1\": must be true or false"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "no", " is \"no\": must be true or false"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://c:4318/traces",
            " is \"https://c:4318/traces\": must end in /v1/traces, if it has a path: set telemetry.otlp_endpoint and \
             export.default.path for another",
        ),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "a",
            ": must be name=value,name=value, with %2C for a comma and %25 for a percent sign in a value",
        ),
        (
            "OTEL_TRACES_SAMPLER",
            "sometimes",
            " is \"sometimes\": must be \"always_on\", \"always_off\" or \"traceidratio\", or one of them behind \
             \"parentbased_\"",
        ),
    ] {
        assert_eq!(variable_refused(name, value), format!("variable {name}{problem}"));
    }
    let sampler = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    assert_eq!(
        only(load(&[], &sampler).unwrap_err()),
        "variable OTEL_TRACES_SAMPLER_ARG is \"2\": must be a number from 0 to 1"
    );
}

#[test]
fn what_a_key_cannot_be_is_refused_with_the_variable_that_set_it() {
    assert_eq!(
        variable_refused("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        "export.default.timeout is \"0ms\" (variable OTEL_EXPORTER_OTLP_TIMEOUT): \
         must be a duration from 10ms to 10m, such as \"10s\""
    );
    assert_eq!(
        variable_refused("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
        "export.default.compression is \"zstd\" (variable OTEL_EXPORTER_OTLP_TRACES_COMPRESSION): \
         must be \"none\" or \"gzip\""
    );
    let problem = variable_refused("OTEL_EXPORTER_OTLP_HEADERS", "hush");
    assert!(problem.starts_with("export.default.headers (variable OTEL_EXPORTER_OTLP_HEADERS): must be"));
    assert!(!problem.contains("hush"));
}

#[test]
fn what_nyx_does_not_have_is_refused_by_name_and_not_ignored() {
    for (name, value, problem) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", " is \"http/json\": asks for OTLP in JSON"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", " is \"http/json\": asks for OTLP in JSON"),
        ("OTEL_TRACES_SAMPLER", "xray", " is \"xray\": asks for sampling that is decided elsewhere"),
    ] {
        assert_eq!(
            variable_refused(name, value),
            format!("variable {name}{problem}, which is not part of this version: unset it")
        );
    }
}
