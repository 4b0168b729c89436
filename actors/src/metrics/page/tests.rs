use super::{super::*, *};

const START: Duration = Duration::from_secs(1_000);

fn left_out(page: Page) -> (Vec<PageFamily>, f64) {
    let mut families = page.finish(&LeftOut::default());
    let at = families.iter().position(|f| f.family.name() == PAGE_LEFT_OUT.family().name).unwrap();
    let count = families.remove(at).family.get_metric()[0].get_counter().get_value();
    (families, count)
}

fn foreign(name: &str, kind: proto::MetricType) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![proto::Metric::default()]);
    family
}

#[test]
fn families_and_series_stand_in_the_order_of_their_names_whatever_order_they_came_in() {
    let mut page = Page::new(START);
    page.gauge(&LOG_BYTES, [], 1.0);
    page.counter(&DOOR_REQUESTS_REFUSED, ["http", "size"], 1);
    page.counter(&DOOR_REQUESTS_REFUSED, ["grpc", "size"], 2);
    let (families, left_out) = left_out(page);
    let names: Vec<_> = families.iter().map(|f| f.family.name()).collect();
    assert_eq!(names, ["nyx_door_requests_refused_total", "nyx_log_bytes"]);
    let values: Vec<_> =
        families[0].family.get_metric().iter().map(|m| m.get_counter().get_value()).collect();
    assert_eq!((values, left_out), (vec![2.0, 1.0], 0.0));
}

#[test]
fn a_second_series_with_the_same_labels_is_left_out_and_counted() {
    let mut page = Page::new(START);
    page.gauge(&DOOR_CONNECTIONS, ["grpc"], 1.0);
    page.gauge(&DOOR_CONNECTIONS, ["http"], 7.0);
    page.gauge(&DOOR_CONNECTIONS, ["grpc"], 2.0);
    let (families, left_out) = left_out(page);
    assert_eq!(left_out, 1.0);
    let values: Vec<_> = families[0].family.get_metric().iter().map(|m| m.get_gauge().get_value()).collect();
    assert_eq!(values, [1.0, 7.0], "the first one stays");
}

#[test]
fn a_histogram_that_does_not_match_its_bounds_is_left_out_and_counted() {
    let mut page = Page::new(START);
    let good =
        HistogramValue { bounds: &[1.0, 2.0], buckets: &[1, 0, 3], sum: 9.0, created: START, exemplars: &[] };
    page.histogram(&SPAN_DURATION, ["a", "", "", "", ""], good);
    page.histogram(&SPAN_DURATION, ["b", "", "", "", ""], HistogramValue { buckets: &[1, 0], ..good });
    page.histogram(&SPAN_DURATION, ["c", "", "", "", ""], HistogramValue { bounds: &[2.0, 1.0], ..good });
    page.histogram(&SPAN_DURATION, ["d", "", "", "", ""], HistogramValue { sum: f64::NAN, ..good });
    let (families, left_out) = left_out(page);
    assert_eq!(left_out, 3.0);
    let metric = &families[0].family.get_metric()[0];
    assert_eq!(metric.get_label().len(), 1, "labels with an empty value are not written");
    let histogram = metric.get_histogram();
    let counts: Vec<_> = histogram.get_bucket().iter().map(|b| b.cumulative_count()).collect();
    assert_eq!((counts, histogram.get_sample_count()), (vec![1, 1], 4));
}

#[test]
fn a_foreign_family_that_would_break_the_page_is_left_out_and_counted() {
    use proto::MetricType::{COUNTER, GAUGE, SUMMARY, UNTYPED};
    let mut page = Page::new(START);
    page.foreign(vec![
        foreign("process_cpu_seconds_total", COUNTER),
        foreign("process_cpu_seconds", GAUGE),
        foreign("nyx_span_count", GAUGE),
        foreign("nyx_span_duration_seconds_sum", GAUGE),
        foreign("no_suffix", COUNTER),
        foreign("a summary", SUMMARY),
        foreign("untyped", UNTYPED),
        foreign("dotted.name", GAUGE),
        foreign("", GAUGE),
    ]);
    let (families, left_out) = left_out(page);
    assert_eq!((families.len(), left_out), (1, 8.0));
    let cpu = &families[0];
    assert_eq!((cpu.open_name.as_str(), cpu.unit), ("process_cpu_seconds", Some(Unit::Seconds)));
    assert_eq!(cpu.created, [Some(START)]);
}

#[test]
fn every_declared_metric_and_those_of_the_process_stand_on_one_page() {
    use prometheus::core::Collector as _;
    let mut page = Page::new(START);
    for family in ALL {
        let mut metric = proto::Metric::default();
        metric.set_histogram(proto::Histogram::default());
        let created = (family.kind != Kind::Gauge).then_some(START);
        page.push(family, &vec!["x"; family.labels.len()], &[], metric, created);
    }
    page.families.remove(PAGE_LEFT_OUT.family().name);
    let process = prometheus::process_collector::ProcessCollector::for_self().collect();
    let expected = ALL.len() - 1 + process.len();
    page.foreign(process);
    let (families, left_out) = left_out(page);
    assert_eq!((families.len(), left_out), (expected, 0.0));
}

#[test]
fn what_is_left_out_is_counted_over_all_pages() {
    let total = LeftOut::default();
    let scrape = || {
        let mut page = Page::new(START);
        page.gauge(&LOG_BYTES, [], 1.0);
        page.gauge(&LOG_BYTES, [], 2.0);
        page.finish(&total)[1].family.get_metric()[0].get_counter().get_value()
    };
    assert_eq!((scrape(), scrape()), (1.0, 2.0));
}

#[test]
fn a_family_named_after_spans_that_would_break_the_page_is_left_out_and_counted() {
    let mut page = Page::new(START);
    page.counter(&SPANS_SCANNED, [], 1);
    page.unknown(&SEED_COUNT, "pay", 2.0);
    page.unknown(&SEED_COUNT, "pay", 3.0);
    page.unknown(&SEED_COUNT, "GET /", 3.0);
    page.unknown(&SEED_COUNT, "infinite", f64::INFINITY);
    page.unknown(&SEED_ERRORS, "total", 4.0);
    page.unknown(&SEED_ERRORS, "created", 4.0);
    let (families, left_out) = left_out(page);
    assert_eq!(left_out, 5.0);
    let names: Vec<_> = families.iter().map(|family| (family.family.name(), family.kind)).collect();
    assert_eq!(names, [("nyx_span_count_pay", Kind::Unknown), ("nyx_spans_scanned_total", Kind::Counter)]);
    assert_eq!(families[0].family.get_metric()[0].get_gauge().get_value(), 2.0, "the first one stays");
}
