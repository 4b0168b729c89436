//! What senders send as JSON.

use nyx_telemetry::span::{ScanFault, from_json, scan};

use super::Seeds;
use crate::{Trace, ensure};

/// The longest text of an error.
const ERROR_MAX: usize = 600;

/// What is converted is a request of bounded length, faulty in its spans' ids at most; what is not says why in few words.
pub(super) fn converted(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let mut out = b"before".to_vec();
    match from_json(bytes, &mut out) {
        Err(error) => {
            trace.see(match error.place.as_str() {
                "" => "no json",
                _ => "no request",
            });
            let text = error.to_string();
            ensure!(text.len() <= ERROR_MAX, "an error of {} bytes", text.len());
        }
        Ok(()) => {
            ensure!(out.starts_with(b"before"), "what was there before is gone");
            let out = out.get(6..).unwrap_or_default();
            let bound = bytes.len() + bytes.len() / 8;
            ensure!(out.len() <= bound, "{} bytes of {}", out.len(), bytes.len());
            match scan(out, |_| {}) {
                Ok(scan) => (0..scan.spans.min(32)).for_each(|_| trace.see("span")),
                Err(error) => {
                    trace.see("ids or nesting");
                    let is_known =
                        matches!(error.fault, ScanFault::IdLength { .. } | ScanFault::Nesting { .. });
                    ensure!(is_known, "what was converted is no request: {error}");
                }
            }
        }
    }
    Ok(())
}

pub(super) fn seeds() -> Seeds {
    let span = r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","name":"caf\u00e9",
        "kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,"flags":257,"unknown":[{}],
        "attributes":[{"key":"a","value":{"stringValue":"x"}},{"key":"b","value":{"intValue":"-5"}},{"key":"c","value":{"doubleValue":"NaN"}},
        {"key":"d","value":{"arrayValue":{"values":[{"boolValue":true},{}]}}},{"key":"e","value":{"bytesValue":"AAEC"}},
        {"key":"f","value":{"kvlistValue":{"values":[{"key":"k","value":null}]}}}],
        "events":[{"timeUnixNano":"5","name":"e"}],"links":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B175"}],
        "status":{"code":2,"message":"late"}}"#;
    let around = |spans: &str| {
        format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
            "scopeSpans":[{{"scope":{{"name":"s","version":"1"}},"spans":[{spans}]}}]}}]}}"#
        )
        .into_bytes()
    };
    let nulls = br#"{"resourceSpans":[{"resource":null,"scopeSpans":null,"schemaUrl":"u"}]}"#.to_vec();
    Ok(vec![("every_field", around(span)), ("nulls", nulls), ("two_spans", around(&[span, span].join(",")))])
}
