use super::*;
use crate::{
    measure::{Bounds, Profile, RedScratch, RedSettings, RedShared, RedTotals, Unmeasured, collect},
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

/// Two batches of one operation, the second with an error, under a profile.
fn page_of(profile: Profile, expire_after: Option<Duration>) -> String {
    let bounds = Bounds::new(&[Duration::from_millis(2), Duration::from_secs(5)]).unwrap();
    let red = RedShared::new(RedSettings { profile, bounds, expire_after, ..RedSettings::default() });
    for (number, (status, millis)) in (0..).zip([(StatusCode::Unset, 2), (StatusCode::Error, 4_500)]) {
        let mut scratch = RedScratch::new(red.settings());
        scratch.observe(&SpanView {
            service: "shop",
            name: "pay",
            kind: SpanKind::Server,
            status,
            start_unix_nano: 0,
            end_unix_nano: millis * 1_000_000,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
            bytes: SpanBytes::default(),
        });
        red.merge(number, &scratch.take(), Duration::from_secs(100 + number));
    }
    let mut page = Page::new(Duration::from_secs(1));
    collect(&red.snapshot(), &mut page);
    Format::OpenMetrics.encode(&page.finish(&LeftOut::default()))
}

#[test]
fn each_profile_counts_in_its_own_names_and_units() {
    let labels = |service: &str, status: &str| {
        format!(
            "{service}=\"shop\",span_name=\"pay\",span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_{status}\""
        )
    };
    for (profile, service, calls, duration, below, sum) in [
        (Profile::Nyx, "service_name", "nyx_span_count", "nyx_span_duration_seconds", "5.0", "4.5"),
        (
            Profile::SpanMetrics,
            "service_name",
            "traces_span_metrics_calls",
            "traces_span_metrics_duration_milliseconds",
            "5000.0",
            "4500",
        ),
        (Profile::Tempo, "service", "traces_spanmetrics_calls", "traces_spanmetrics_latency", "5.0", "4.5"),
    ] {
        let page = page_of(profile, None);
        let (fine, bad) = (labels(service, "UNSET"), labels(service, "ERROR"));
        for line in [
            format!("{calls}_total{{{fine}}} 1"),
            format!("{calls}_created{{{bad}}} 101.000"),
            format!("{duration}_bucket{{{bad},le=\"{below}\"}} 1"),
            format!("{duration}_sum{{{bad}}} {sum}"),
            format!("{duration}_count{{{fine}}} 1"),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
        assert_eq!(page.contains("nyx_span_errors_total{"), profile == Profile::Nyx);
    }
}

#[test]
fn the_errors_of_an_operation_begin_with_its_first_span_though_that_was_none() {
    let labels = "service_name=\"shop\",span_name=\"pay\",span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_ERROR\"";
    let page = page_of(Profile::Nyx, None);
    assert!(page.contains(&format!("nyx_span_errors_total{{{labels}}} 1\n")), "{page}");
    assert!(page.contains(&format!("nyx_span_errors_created{{{labels}}} 100.000\n")), "{page}");
}

#[test]
fn a_page_has_no_series_that_nobody_counted_in_for_too_long() {
    // It was long ago that the clock stood at 100 s.
    let page = page_of(Profile::Nyx, Some(Duration::from_secs(600)));
    assert!(!page.contains("shop") && page.contains("nyx_measure_series 0\n"), "{page}");
}

#[test]
fn each_total_has_its_own_family() {
    let mut red = RedShared::default().snapshot();
    let unmeasured = Unmeasured { damaged: 1, released: 2 };
    red.totals = RedTotals { unmeasured, caught_up: 3, folded: 4, cut: 5, expired: 6 };
    let mut page = Page::new(Duration::from_secs(1));
    collect(&red, &mut page);
    let page = Format::Text.encode(&page.finish(&LeftOut::default()));
    for line in [
        "nyx_measure_unmeasured_spans_total{reason=\"damaged\"} 1",
        "nyx_measure_unmeasured_spans_total{reason=\"released\"} 2",
        "nyx_measure_caught_up_spans_total 3",
        "nyx_measure_folded_spans_total 4",
        "nyx_measure_cut_values_total 5",
        "nyx_measure_expired_series_total 6",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
}
