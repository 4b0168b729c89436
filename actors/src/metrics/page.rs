//! A metrics page as data, from which either text is made.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus::proto;

use super::{Counter, Family, Gauge, Histogram, Kind, NamedAfterSpans, PAGE_LEFT_OUT, Unit};
use crate::span::{SpanId, TraceId};

/// Collects the series of one scrape.
///
/// A series that would break the page (a second one with the same labels, a histogram whose buckets do not
/// match its bounds, a foreign family with a reserved name) is left out and counted. A label with an empty
/// value is not written: to Prometheus both are the same.
#[derive(Debug)]
pub struct Page {
    started: Duration,
    families: BTreeMap<String, PageFamily>,
    left_out: u64,
}

/// A family of a finished page: at least one series, no two with the same labels, in the labels' order.
#[derive(Debug, Clone, PartialEq)]
pub struct PageFamily {
    /// What the `prometheus` crate's encoder takes.
    pub family: proto::MetricFamily,
    /// The name in OpenMetrics.
    pub open_name: String,
    /// The kind; agrees with the family's type.
    pub kind: Kind,
    /// The unit, if there is one.
    pub unit: Option<Unit>,
    /// When each of the family's series began, since the Unix epoch; `None` for gauges, and where it is not known.
    pub created: Vec<Option<Duration>>,
    /// The exemplars of each of the family's series.
    pub exemplars: Vec<Box<[ExemplarValue]>>,
}

/// A span of a histogram's bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExemplarValue {
    /// The number of the bucket.
    pub bucket: usize,
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// What was observed, in the family's unit.
    pub value: f64,
    /// When, since the Unix epoch.
    pub at: Duration,
}

/// A histogram's series.
#[derive(Debug, Clone, Copy)]
pub struct HistogramValue<'a> {
    /// Upper bounds of the buckets, ascending, without `+Inf`.
    pub bounds: &'a [f64],
    /// The count of each bucket, not cumulated; one more than there are bounds.
    pub buckets: &'a [u64],
    /// The sum of the observations, in the family's unit.
    pub sum: f64,
    /// When the counts began at 0, since the Unix epoch.
    pub created: Duration,
    /// At most one for a bucket; only OpenMetrics has them.
    pub exemplars: &'a [ExemplarValue],
}

/// Series left out of all pages so far; outlives each page.
#[derive(Debug, Default)]
pub struct LeftOut(AtomicU64);

impl Page {
    /// An empty page of a daemon that started at `started`, since the Unix epoch.
    pub fn new(started: Duration) -> Self {
        Self { started, families: BTreeMap::new(), left_out: 0 }
    }

    /// When the daemon started, since the Unix epoch.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// A counter that began with the daemon.
    pub fn counter<const N: usize>(&mut self, family: &'static Counter<N>, labels: [&str; N], value: u64) {
        self.counter_since(family, labels, value, self.started);
    }

    /// A counter that began at `created`, since the Unix epoch; `None` where that is not known, as of one that goes on over
    /// restarts: a wrong time would have scrapers see its whole value as an increase.
    pub fn counter_since<const N: usize>(
        &mut self,
        family: &'static Counter<N>,
        labels: [&str; N],
        value: u64,
        created: impl Into<Option<Duration>>,
    ) {
        self.counter_with(family, labels, &[], value, created);
    }

    /// A counter with labels beyond those of its family.
    pub fn counter_with<const N: usize>(
        &mut self,
        family: &'static Counter<N>,
        labels: [&str; N],
        more: &[(&str, &str)],
        value: u64,
        created: impl Into<Option<Duration>>,
    ) {
        let mut counter = proto::Counter::default();
        counter.set_value(value as f64);
        let mut metric = proto::Metric::default();
        metric.set_counter(counter);
        self.push(family.family(), &labels, more, metric, created.into());
    }

    /// A gauge.
    pub fn gauge<const N: usize>(&mut self, family: &'static Gauge<N>, labels: [&str; N], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        self.push(family.family(), &labels, &[], proto::Metric::from_gauge(gauge), None);
    }

    /// A histogram.
    pub fn histogram<const N: usize>(
        &mut self,
        family: &'static Histogram<N>,
        labels: [&str; N],
        value: HistogramValue<'_>,
    ) {
        self.histogram_with(family, labels, &[], value);
    }

    /// A histogram with labels beyond those of its family.
    pub fn histogram_with<const N: usize>(
        &mut self,
        family: &'static Histogram<N>,
        labels: [&str; N],
        more: &[(&str, &str)],
        value: HistogramValue<'_>,
    ) {
        let HistogramValue { bounds, buckets, sum, created, exemplars } = value;
        let ascending = bounds.iter().all(|b| b.is_finite()) && bounds.is_sorted_by(|a, b| a < b);
        if buckets.len() != bounds.len() + 1 || !ascending || sum.is_nan() {
            self.left_out += 1;
            return;
        }
        let mut cumulated = 0u64;
        let mut cumulate = |count: &u64| {
            cumulated = cumulated.saturating_add(*count);
            cumulated
        };
        let mut histogram = proto::Histogram::default();
        let bucket = |(count, &bound): (&u64, &f64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(cumulate(count));
            bucket.set_upper_bound(bound);
            bucket
        };
        histogram.set_bucket(buckets.iter().zip(bounds).map(bucket).collect());
        histogram.set_sample_count(buckets.last().map_or(0, cumulate));
        histogram.set_sample_sum(sum);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        self.push(family.family(), &labels, more, metric, Some(created));
        let family = self.families.get_mut(family.family().name);
        if let Some(slot) = family.and_then(|family| family.exemplars.last_mut()) {
            *slot = exemplars.into();
        }
    }

    /// A family with one series and no type, whose name ends with `name`. Names are the caller's matter: one that is there
    /// already, or that another family's samples take, is left out.
    pub fn unknown(&mut self, family: &'static NamedAfterSpans, name: &str, value: f64) {
        let name = format!("{}{name}", family.prefix);
        if !is_name(&name) || !value.is_finite() || self.families.contains_key(&name) {
            self.left_out += 1;
            return;
        }
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut of_name = proto::MetricFamily::default();
        of_name.set_name(name.clone());
        of_name.set_help(family.help.to_owned());
        // The crate's encoder knows no other type that has a plain value; see the exposition.
        of_name.set_field_type(proto::MetricType::GAUGE);
        of_name.set_metric(vec![proto::Metric::from_gauge(gauge)]);
        let page = PageFamily {
            family: of_name,
            open_name: name.clone(),
            kind: Kind::Unknown,
            unit: None,
            created: vec![None],
            exemplars: vec![Box::default()],
        };
        self.families.insert(name, page);
    }

    /// Families from elsewhere, such as the `prometheus` crate's `ProcessCollector`; their counters began with
    /// the daemon.
    pub fn foreign(&mut self, families: Vec<proto::MetricFamily>) {
        for family in families {
            let series = family.get_metric().len() as u64;
            match self.adopt(family) {
                Some(adopted) => {
                    self.families.insert(adopted.family.name().to_owned(), adopted);
                }
                None => self.left_out += series,
            }
        }
    }

    /// The page: families and their series in the order of their names and labels.
    pub fn finish(mut self, left_out: &LeftOut) -> Vec<PageFamily> {
        self.left_out += self.drop_clashing();
        for family in self.families.values_mut() {
            self.left_out += family.sort_and_dedup();
        }
        let total = left_out.0.fetch_add(self.left_out, Relaxed).saturating_add(self.left_out);
        self.counter(&PAGE_LEFT_OUT, [], total);
        self.families.into_values().filter(|family| !family.created.is_empty()).collect()
    }

    /// Leaves the families of no type out whose name a sample of a declared family has; returns how many.
    fn drop_clashing(&mut self) -> u64 {
        let before = self.families.len();
        let taken: HashSet<String> =
            declared().flat_map(|family| reserved_names(family.open_name(), family.kind)).collect();
        self.families.retain(|name, family| family.kind != Kind::Unknown || !taken.contains(name));
        (before - self.families.len()) as u64
    }

    fn push(
        &mut self,
        declared: &'static Family,
        values: &[&str],
        more: &[(&str, &str)],
        mut metric: proto::Metric,
        created: Option<Duration>,
    ) {
        let labels = declared.labels.iter().copied().zip(values.iter().copied()).chain(more.iter().copied());
        metric.set_label(labels.filter(|(_, value)| !value.is_empty()).map(label).collect());
        if !self.families.contains_key(declared.name) {
            self.families.insert(declared.name.to_owned(), PageFamily::of(declared));
        }
        if let Some(family) = self.families.get_mut(declared.name) {
            family.family.mut_metric().push(metric);
            family.created.push(created);
            family.exemplars.push(Box::default());
        }
    }

    /// The family if nothing about it would break the page.
    fn adopt(&self, family: proto::MetricFamily) -> Option<PageFamily> {
        let kind = match family.get_field_type() {
            proto::MetricType::COUNTER => Kind::Counter,
            proto::MetricType::GAUGE => Kind::Gauge,
            proto::MetricType::HISTOGRAM => Kind::Histogram,
            proto::MetricType::SUMMARY | proto::MetricType::UNTYPED => return None,
        };
        let name = family.name();
        let open_name = match kind {
            Kind::Counter => name.strip_suffix("_total")?,
            Kind::Gauge | Kind::Histogram | Kind::Unknown => name,
        };
        let labels = family.get_metric().iter().flat_map(|metric| metric.get_label());
        if !is_name(name) || !labels.clone().all(|label| is_name(label.name()) && label.name() != "le") {
            return None;
        }
        let declared = declared().map(|family| (family.open_name(), family.kind));
        let present = self.families.values().map(|family| (family.open_name.as_str(), family.kind));
        let taken: HashSet<String> =
            declared.chain(present).flat_map(|(name, kind)| reserved_names(name, kind)).collect();
        if reserved_names(open_name, kind).iter().any(|name| taken.contains(name)) {
            return None;
        }
        let open_name = open_name.to_owned();
        let unit = [Unit::Bytes, Unit::Seconds]
            .into_iter()
            .find(|unit| open_name.strip_suffix(unit.name()).is_some_and(|rest| rest.ends_with('_')));
        let created = if kind == Kind::Gauge { None } else { Some(self.started) };
        let created = vec![created; family.get_metric().len()];
        let exemplars = vec![Box::default(); created.len()];
        Some(PageFamily { family, open_name, kind, unit, created, exemplars })
    }
}

impl PageFamily {
    fn of(declared: &'static Family) -> Self {
        let mut family = proto::MetricFamily::default();
        family.set_name(declared.name.to_owned());
        family.set_help(declared.help.to_owned());
        family.set_field_type(match declared.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge | Kind::Unknown => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        let open_name = declared.open_name().to_owned();
        Self {
            family,
            open_name,
            kind: declared.kind,
            unit: declared.unit,
            created: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    /// Puts the series in order and returns how many it left out: of those with the same labels, all but the
    /// first that was given.
    fn sort_and_dedup(&mut self) -> u64 {
        let more = self.created.drain(..).zip(self.exemplars.drain(..));
        let mut series: Vec<_> = self.family.take_metric().into_iter().zip(more).collect();
        let before = series.len();
        series.sort_by(|(a, _), (b, _)| by_labels(a, b));
        series.dedup_by(|(a, _), (b, _)| by_labels(a, b) == Ordering::Equal);
        let (metrics, more): (Vec<_>, Vec<_>) = series.into_iter().unzip();
        self.family.set_metric(metrics);
        (self.created, self.exemplars) = more.into_iter().unzip();
        (before - self.created.len()) as u64
    }
}

fn by_labels(a: &proto::Metric, b: &proto::Metric) -> Ordering {
    let key = |label: &proto::LabelPair, other: &proto::LabelPair| {
        label.name().cmp(other.name()).then_with(|| label.value().cmp(other.value()))
    };
    let (a, b) = (a.get_label(), b.get_label());
    let differ = a.iter().zip(b).map(|(a, b)| key(a, b)).find(|order| order.is_ne());
    differ.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn label((name, value): (&str, &str)) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// A name of a metric or label that every version of Prometheus reads.
fn is_name(name: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(first) && name.bytes().all(|b| first(b) || b.is_ascii_digit())
}

/// Every declared family, of every profile.
fn declared() -> impl Iterator<Item = &'static Family> {
    super::ALL.iter().chain(super::PROFILES).copied()
}

/// Every name that a family's samples and headers take, in either format.
pub(super) fn reserved_names(open_name: &str, kind: Kind) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        Kind::Counter => &["", "_total", "_created"],
        Kind::Gauge | Kind::Unknown => &[""],
        Kind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
    };
    suffixes.iter().map(|suffix| format!("{open_name}{suffix}")).collect()
}

#[cfg(test)]
mod tests;
