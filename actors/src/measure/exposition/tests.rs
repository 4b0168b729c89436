use super::*;
use crate::{
    measure::{Bounds, RedScratch, RedSettings, RedShared, collect},
    metrics::*,
    span::{Sampler, SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId},
};

/// A page with something of everything: each kind of metric, a foreign family, odd texts, the overflow series.
fn page() -> Vec<PageFamily> {
    let ms = Duration::from_millis;
    let bounds = Bounds::new(&[ms(2), ms(1_000), ms(2_500)]).unwrap();
    let red = RedShared::new(RedSettings {
        max_series: 5,
        bounds,
        exemplars: Some(Sampler::new(1.0)),
        ..RedSettings::default()
    });
    let mut scratch = RedScratch::new(red.settings());
    let odd = "line\nquote\" back\\slash é {le=\"1\"} # EOF";
    for (service, name, kind, status, millis) in [
        ("shop", "GET /pay", SpanKind::Server, StatusCode::Unset, 2),
        ("shop", "GET /pay", SpanKind::Server, StatusCode::Unset, 3),
        ("shop", "GET /pay", SpanKind::Server, StatusCode::Error, 4_000),
        ("shop", odd, SpanKind::Internal, StatusCode::Ok, 1),
        ("", "", SpanKind::Unspecified, StatusCode::Unset, 0),
        ("one", "too many", SpanKind::Client, StatusCode::Error, 1_000),
    ] {
        scratch.observe(&SpanView {
            service,
            name,
            kind,
            status,
            start_unix_nano: 0,
            end_unix_nano: millis * 1_000_000,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
            bytes: SpanBytes::default(),
        });
    }
    red.merge(0, &scratch.take(), Duration::from_millis(1_700_000_100_250));

    let mut page = Page::new(Duration::from_secs(1_700_000_000));
    collect(&red.snapshot(), &mut page);
    page.gauge(&BUILD_INFO, ["0.1.0"], 1.0);
    page.gauge(&LOG_BYTES, [], 268_435_456.0);
    page.gauge(&DESTINATION_LAST_SUCCESS, ["default"], 1_700_000_099.5);
    page.gauge(&DESTINATION_STATE, ["default", "idle"], 1.0);
    page.gauge(&DESTINATION_STATE, ["default", "blocked"], 0.0);
    page.counter(&DOOR_REQUESTS_REFUSED, ["grpc", "too_large"], 12_345_678);
    let mut cpu = proto::MetricFamily::default();
    cpu.set_name("process_cpu_seconds_total".to_owned());
    cpu.set_help("A foreign \\ help\ntext.".to_owned());
    cpu.set_metric(vec![proto::Metric::default()]);
    page.foreign(vec![cpu]);
    page.finish(&LeftOut::default())
}

/// Compares with a golden file; `NYX_GOLDEN=write` writes it anew.
fn golden(name: &str, got: &str) {
    let path = format!("{}/src/measure/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NYX_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, got).unwrap();
    }
    assert_eq!(got, std::fs::read_to_string(&path).unwrap(), "{path}");
}

#[test]
fn the_text_page_is_the_golden_one() {
    golden("page.txt", &Format::Text.encode(&page()));
}

#[test]
fn the_openmetrics_page_is_the_golden_one() {
    golden("page.openmetrics", &Format::OpenMetrics.encode(&page()));
}

#[test]
fn an_empty_page_ends_as_openmetrics_asks() {
    assert_eq!(Format::OpenMetrics.encode(&[]), "# EOF\n");
    assert_eq!(Format::Text.encode(&[]), "");
}

#[test]
fn bounds_are_written_as_the_canonical_numbers_of_the_specification() {
    let written = |bounds: &[f64]| bounds.iter().map(|&b| canonical(b)).collect::<Vec<_>>().join(" ");
    assert_eq!(
        written(&[1e-10, 1e-5, 1e-4, 0.002, 0.1, 1.0, 1.4, 10.0, 15.0, 100_000.0, 1e6, 1.5e6, 1e10]),
        "1e-10 1e-05 0.0001 0.002 0.1 1.0 1.4 10.0 15.0 100000.0 1e+06 1.5e+06 1e+10"
    );
    assert_eq!(written(&[0.0, f64::INFINITY]), "0.0 +Inf");
    assert_eq!(number(f64::NEG_INFINITY), "-Inf");
    assert_eq!(number(f64::NAN), "NaN");
}

#[test]
fn openmetrics_goes_only_to_those_who_name_it_and_do_not_prefer_the_text() {
    let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                        q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                        application/openmetrics-text;version=0.0.1;q=0.5,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for accept in [
        prometheus_2,
        prometheus_3,
        "application/openmetrics-text",
        "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.1",
        "text/plain;q=0.5, application/openmetrics-text;q=0.5",
        "*/*, text/plain;q=0.1, application/openmetrics-text;q=0.2",
    ] {
        assert_eq!(Format::negotiate(Some(accept)), Format::OpenMetrics, "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=much",
        "application/openmetrics-text;q=0.5, text/*;q=0.6",
        "application/json",
        ";;;,,,=q",
    ] {
        assert_eq!(Format::negotiate(Some(accept)), Format::Text, "{accept}");
    }
    assert_eq!(Format::negotiate(None), Format::Text);
}

#[test]
fn the_content_types_are_those_that_prometheus_knows() {
    assert_eq!(Format::Text.content_type(), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(
        Format::OpenMetrics.content_type(),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
}
