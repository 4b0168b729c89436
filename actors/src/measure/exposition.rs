//! The texts of a metrics page, and which of them a scraper gets (level 0).
//!
//! * Prometheus text 0.0.4, by the `prometheus` crate's encoder.
//! * OpenMetrics 1.0, by the encoder here, with units and `_created` samples
//!   (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use prometheus::{TextEncoder, proto};

use crate::metrics::{ExemplarValue, Kind, PageFamily};

/// The text formats of a metrics page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a request with this `Accept` header (RFC 9110, section 12.5.1).
    ///
    /// OpenMetrics goes only to those who name it and do not prefer the other; everyone else, whatever they
    /// ask for, gets the text that every version of Prometheus reads.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut open_metrics = 0.0f32;
        // How exactly the text was named, and with which weight: the most exact range counts.
        let mut text = (0u8, 0.0f32);
        for range in accept.unwrap_or_default().split(',') {
            let range = Range::parse(range);
            match (range.media_type.as_str(), range.version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => {
                    open_metrics = open_metrics.max(range.weight);
                }
                ("text/plain", None | Some("0.0.4")) => text = more_exact(text, (3, range.weight)),
                ("text/*", _) => text = more_exact(text, (2, range.weight)),
                ("*/*", _) => text = more_exact(text, (1, range.weight)),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text.1 { Self::OpenMetrics } else { Self::Text }
    }

    /// The answer's `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The page in this format.
    pub fn encode(self, page: &[PageFamily]) -> String {
        match self {
            Self::Text => text(page),
            Self::OpenMetrics => open_metrics(page),
        }
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    media_type: String,
    version: Option<&'a str>,
    weight: f32,
}

impl<'a> Range<'a> {
    fn parse(range: &'a str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut parsed = Self { media_type, version: None, weight: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => parsed.version = Some(value),
                // A weight that is none is taken as "not acceptable": the default text is always safe.
                "q" => {
                    parsed.weight = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
                }
                _ => {}
            }
        }
        parsed
    }
}

fn more_exact(a: (u8, f32), b: (u8, f32)) -> (u8, f32) {
    match a.0.cmp(&b.0) {
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal => (a.0, a.1.max(b.1)),
        std::cmp::Ordering::Greater => a,
    }
}

fn text(page: &[PageFamily]) -> String {
    let mut out = String::new();
    for family in page {
        if family.kind == Kind::Unknown {
            untyped(&family.family, &mut out);
            continue;
        }
        let before = out.len();
        // It refuses only families without a name or without series, of which a page has none.
        if TextEncoder::new().encode_utf8(std::slice::from_ref(&family.family), &mut out).is_err() {
            out.truncate(before);
        }
    }
    out
}

/// By hand: the crate's encoder panics where it meets this type.
fn untyped(family: &proto::MetricFamily, out: &mut String) {
    let name = family.name();
    for metric in family.get_metric() {
        let value = number(metric.get_gauge().get_value());
        // Writing to a string cannot fail.
        let _infallible =
            write!(out, "# HELP {name} {}\n# TYPE {name} untyped\n{name} {value}\n", family.help());
    }
}

fn open_metrics(page: &[PageFamily]) -> String {
    let mut out = OpenMetrics(String::new());
    for family in page {
        out.family(family);
    }
    out.line(format_args!("# EOF"));
    out.0
}

struct OpenMetrics(String);

/// A label that the encoder adds to those of the series.
type Extra<'a> = Option<(&'a str, &'a str)>;

impl OpenMetrics {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _infallible = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn family(&mut self, page: &PageFamily) {
        let PageFamily { family, open_name: name, kind, unit, created, exemplars } = page;
        let kind_name = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Unknown => "unknown",
        };
        self.line(format_args!("# TYPE {name} {kind_name}"));
        if let Some(unit) = unit {
            self.line(format_args!("# UNIT {name} {}", unit.name()));
        }
        if !family.help().is_empty() {
            self.line(format_args!("# HELP {name} {}", escape(family.help())));
        }
        for ((metric, created), exemplars) in family.get_metric().iter().zip(created).zip(exemplars) {
            match kind {
                Kind::Counter => {
                    self.sample(name, "_total", metric, None, &number(metric.get_counter().get_value()));
                }
                Kind::Gauge | Kind::Unknown => {
                    self.sample(name, "", metric, None, &number(metric.get_gauge().get_value()));
                }
                Kind::Histogram => self.histogram(name, metric, exemplars),
            }
            if let Some(created) = created {
                self.sample(name, "_created", metric, None, &timestamp(*created));
            }
        }
    }

    fn histogram(&mut self, name: &str, metric: &proto::Metric, exemplars: &[ExemplarValue]) {
        let histogram = metric.get_histogram();
        let exemplar = |bucket: usize| exemplars.iter().find(|it| it.bucket == bucket).map(exemplar);
        for (number, bucket) in histogram.get_bucket().iter().enumerate() {
            let bound = canonical(bucket.upper_bound());
            let count = format!("{}{}", bucket.cumulative_count(), exemplar(number).unwrap_or_default());
            self.sample(name, "_bucket", metric, Some(("le", &bound)), &count);
        }
        let count = histogram.get_sample_count().to_string();
        if histogram.get_bucket().last().is_none_or(|bucket| bucket.upper_bound() != f64::INFINITY) {
            let last = exemplar(histogram.get_bucket().len()).unwrap_or_default();
            self.sample(name, "_bucket", metric, Some(("le", "+Inf")), &format!("{count}{last}"));
        }
        self.sample(name, "_count", metric, None, &count);
        self.sample(name, "_sum", metric, None, &number(histogram.get_sample_sum()));
    }

    fn sample(&mut self, name: &str, suffix: &str, metric: &proto::Metric, extra: Extra<'_>, value: &str) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let labels = metric.get_label().iter().map(|label| (label.name(), label.value())).chain(extra);
        let mut separator = '{';
        for (name, value) in labels {
            self.0.push(separator);
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.0.push_str(&escape(value));
            self.0.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
        self.line(format_args!(" {value}"));
    }
}

/// A text with the three characters escaped that OpenMetrics asks for, in labels as in help.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

/// An exemplar behind the value of its bucket: 63 characters of labels, of the 128 that there may be.
fn exemplar(exemplar: &ExemplarValue) -> String {
    let ExemplarValue { trace_id, span_id, value, at, .. } = exemplar;
    let (value, at) = (number(*value), timestamp(*at));
    format!(" # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {value} {at}")
}

/// Seconds with milliseconds.
fn timestamp(at: Duration) -> String {
    format!("{}.{:03}", at.as_secs(), at.subsec_millis())
}

/// A bound as OpenMetrics' canonical numbers have it (as Go's `%g`, and never without a point or an
/// exponent): the bound is part of the series' identity, so that every writer has to agree.
fn canonical(bound: f64) -> String {
    if !bound.is_finite() {
        return number(bound);
    }
    let scientific = format!("{bound:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{bound:?}"),
    }
}

#[cfg(test)]
mod tests;
