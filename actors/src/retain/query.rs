//! What is asked of the retention buffer.

use bytes::Bytes;

use crate::span::{self, Scalar, SpanView, TraceId};

/// Bytes of an answer's spans at most; a single one may be larger.
pub const FOUND_BYTES_MAX: usize = 4 << 20;

/// Others may run after so many bytes were looked through.
const STEP_BYTES: usize = 256 << 10;

/// The attribute by which spans name their connection.
const CONNECTION: &str = "connection.id";

/// Which spans are wanted: those that fulfil every condition that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanQuery {
    /// Of this trace.
    pub trace_id: Option<TraceId>,
    /// Whose attribute `connection.id`, a text or an integer, is this.
    pub connection: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// Spans at most.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Requests with the spans that were wanted and no others, the newest request first.
    pub requests: Vec<Bytes>,
    /// The number of spans.
    pub spans: usize,
    /// There are more: the limit, or [`FOUND_BYTES_MAX`], was reached.
    pub truncated: bool,
}

impl SpanQuery {
    pub(super) async fn run(&self, batches: Vec<Bytes>) -> Found {
        let (mut found, mut found_bytes, mut looked) = (Found::default(), 0_usize, 0_usize);
        let connection = self.connection.as_deref();
        // Taken one by one, so that what was looked through is let go of.
        for batch in batches {
            let (mut request, mut matched) = (Vec::new(), 0_usize);
            let room = self.limit - found.spans;
            let selected = span::select(
                &batch,
                |_, span| {
                    let wanted = self.trace_id.is_none_or(|trace_id| span.trace_id == trace_id)
                        && self.name.as_deref().is_none_or(|name| span.name == name)
                        && connection.is_none_or(|connection| is_of(span, connection));
                    matched += usize::from(wanted);
                    wanted && matched <= room
                },
                &mut request,
            );
            // Bytes that the log took scan.
            let spans = selected.unwrap_or_default() as usize;
            if spans > 0 {
                found_bytes = found_bytes.saturating_add(request.len());
                if found_bytes > FOUND_BYTES_MAX && found.spans > 0 {
                    found.truncated = true;
                    return found;
                }
                found.spans += spans;
                found.requests.push(request.into());
            }
            if matched > spans {
                found.truncated = true;
                return found;
            }
            looked += batch.len();
            if looked > STEP_BYTES {
                looked = 0;
                tokio::task::yield_now().await;
            }
        }
        found
    }
}

/// Whether a span's attribute `connection.id` is this text, or this number as an integer.
fn is_of(span: &SpanView<'_>, connection: &str) -> bool {
    let mut is = false;
    span.bytes.attributes(|key, value| {
        if key == CONNECTION.as_bytes() {
            is |= match value {
                Scalar::Text(text) => text == connection,
                Scalar::Int(number) => connection.parse() == Ok(number),
                Scalar::Bool(_) | Scalar::Double(_) => false,
            };
        }
    });
    is
}
