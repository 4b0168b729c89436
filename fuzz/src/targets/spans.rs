//! What senders send.

use nyx_telemetry::span::{
    Odd, Reporter, RequestBuffer, SpanContext, SpanEncoder, SpanId, SpanKind, SpanLimits, SpanStart,
    StatusCode, TraceFlags, TraceId, Value, cut, inspect, keep_valid, scan, select,
};

use super::Seeds;
use crate::{Trace, ensure};

/// What is compared of a span.
type Seen = (String, String, u64, u64, TraceId, SpanId);

fn seen(bytes: &[u8]) -> Result<Vec<Seen>, String> {
    let mut seen = Vec::new();
    let scan = scan(bytes, |span| {
        let (service, name) = (span.service.to_owned(), span.name.to_owned());
        seen.push((service, name, span.start_unix_nano, span.end_unix_nano, span.trace_id, span.span_id));
    })
    .map_err(|error| error.to_string())?;
    ensure!(scan.spans as usize == seen.len(), "{} spans counted, {} shown", scan.spans, seen.len());
    Ok(seen)
}

/// A request that scans can be selected from and cut, and what comes out are its spans.
pub(super) fn scan_select_cut(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let mut out = b"before".to_vec();
    let scanned = scan(bytes, |_| {});
    // What was never scanned may be cut to anything, but not panic.
    let some = cut(bytes, 0, 2, 64, &mut out);
    ensure!(out.starts_with(b"before"), "what was there before a cut is gone");
    if let Err(error) = scanned {
        trace.see("refused");
        out.truncate(6);
        // Of several faults they may name different ones.
        let selected = select(bytes, |_, _| true, &mut out);
        ensure!(selected.is_err(), "scan says {error}, select {selected:?}");
        ensure!(out == b"before", "a failed select left bytes");
        return Ok(());
    }
    let spans = seen(bytes)?;
    ensure!(some.is_ok(), "a scanned request cannot be cut: {some:?}");
    (0..spans.len().min(32)).for_each(|_| trace.see("span"));

    out.clear();
    let kept = select(bytes, |index, _| index % 2 == 0, &mut out).map_err(|error| error.to_string())?;
    let even: Vec<_> = spans.iter().step_by(2).cloned().collect();
    let found = seen(&out)?;
    ensure!(kept as usize == even.len() && found == even, "selected {kept}: {found:?} of {spans:?}");

    for (max_spans, max_bytes) in [(1, usize::MAX), (3, usize::MAX), (u32::MAX, bytes.len() / 2)] {
        let mut at = 0;
        while at < spans.len() {
            out.clear();
            let count =
                cut(bytes, at as u32, max_spans, max_bytes, &mut out).map_err(|e| e.to_string())? as usize;
            ensure!(count > 0 && count <= max_spans as usize, "{count} spans cut at {at}, limit {max_spans}");
            let found = seen(&out)?;
            let wanted = spans.get(at..at + count).unwrap_or_default();
            ensure!(found == wanted, "cut at {at}: {found:?}, not {wanted:?}");
            trace.see_if(count > 1 && count < spans.len(), "cut");
            at += count;
        }
        out.clear();
        let behind = cut(bytes, spans.len() as u32, max_spans, max_bytes, &mut out);
        ensure!(behind == Ok(0) && out.is_empty(), "behind the last span: {behind:?}, {} bytes", out.len());
    }
    Ok(())
}

/// What a door keeps of a request is a request, with all the spans that it counts as kept.
pub(super) fn inspected(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let mut shown = Vec::new();
    let found = inspect(bytes, 10, |span| shown.push((span.name.to_owned(), span.trace_id, span.span_id)));
    let mut out = b"before".to_vec();
    let kept = keep_valid(bytes, &mut out);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            trace.see("refused");
            ensure!(scan(bytes, |_| {}).is_err(), "a scan takes what is refused: {error}");
            ensure!(kept.is_err() && out == b"before", "{kept:?} kept of what is refused");
            return Ok(());
        }
    };
    trace.see_if(found.kept > 0, "kept");
    trace.see_if(found.rejected.total() > 0, "rejected");
    trace.see_if(found.odd != Odd::default(), "odd");
    if let Ok(scan) = scan(bytes, |_| {}) {
        let total = found.kept + found.rejected.total();
        ensure!(total == scan.spans, "{total} spans accounted for, {} scanned", scan.spans);
    }
    ensure!(kept == Ok(found.kept), "{} spans counted, {kept:?} kept", found.kept);
    let mut again = Vec::new();
    let out = out.get(6..).unwrap_or_default();
    let rest = inspect(out, 10, |span| again.push((span.name.to_owned(), span.trace_id, span.span_id)))
        .map_err(|error| format!("what is kept is refused: {error}"))?;
    ensure!(rest.rejected.total() == 0 && rest.odd == found.odd, "{rest:?} of {found:?}");
    ensure!(again == shown, "{again:?} kept, {shown:?} shown");
    Ok(())
}

/// A text that is a header is the same one when it is written and read again.
pub(super) fn traceparent(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        trace.see("no text");
        return Ok(());
    };
    match text.parse::<SpanContext>() {
        Ok(context) => {
            trace.see("context");
            trace.see_if(text.len() > 55, "later version");
            let again = context.to_string().parse::<SpanContext>();
            let same = again.is_ok_and(|again| {
                (again.trace_id, again.span_id, again.flags.is_sampled())
                    == (context.trace_id, context.span_id, context.flags.is_sampled())
            });
            ensure!(same, "{context} is read as {again:?}");
        }
        Err(error) => trace.see(match error.to_string().split_whitespace().nth(3) {
            Some("dash") => "dash",
            Some("lowercase") => "digit",
            Some("ff") => "version",
            Some("trace") => "trace id",
            Some("parent") => "parent id",
            Some(_) | None => "length",
        }),
    }
    Ok(())
}

pub(super) fn request_seeds() -> Seeds {
    let request = |service: &str, names: &[&str]| {
        let mut encoder = SpanEncoder::new(SpanLimits::default());
        let resource = [("service.name", Value::from(service))];
        let reporter = Reporter { resource: &resource, scope_name: "corpus", scope_version: "1" };
        let mut buffer = RequestBuffer::new(&reporter, 1024);
        for (index, name) in (1u8..).zip(names) {
            let ids = (TraceId::from_slice(&[index; 16]), SpanId::from_slice(&[index; 8]));
            let (Some(trace_id), Some(span_id)) = ids else { continue };
            let context = SpanContext { trace_id, span_id, flags: TraceFlags::SAMPLED };
            let parent = Some(span_id).filter(|_| index > 1);
            let (kind, parent_is_remote) = (SpanKind::Server, false);
            encoder.start(&SpanStart { context, parent, parent_is_remote, name, kind, start_unix_nano: 5 });
            encoder.attribute("http.route", "/cart");
            encoder.event(6, "cache miss", &[]);
            encoder.link(&context, "", &[]);
            encoder.status(StatusCode::Error, "late");
            buffer.push(encoder.end(9 + u64::from(index)));
        }
        buffer.take().0.to_vec()
    };
    let one = request("shop", &["checkout"]);
    let many = request("shop", &["checkout", "cart", "", "pay", "ship"]);
    let other = request("", &["other", "another"]);
    Ok(vec![("one", one), ("two_requests", [many.as_slice(), &other].concat()), ("many", many)])
}

pub(super) fn traceparent_seeds() -> Seeds {
    let known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let later = format!("cc{}-what-comes-later", known.trim_start_matches("00"));
    Ok(vec![("version_00", known.into()), ("later_version", later.into_bytes())])
}
