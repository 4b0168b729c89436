//! `/api/v1/spans`: the last spans, from the retention buffer.

use std::fmt::Display;

use actix_web::{HttpRequest, HttpResponse, web};
use nyx_telemetry::{
    observe::Observed,
    retain::{Found, SpanQuery},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};

use crate::otlp_json;

/// Where the page is.
pub(crate) const PATH: &str = "/api/v1/spans";

/// Spans of an answer, unless the query says otherwise, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Characters of a query that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Answers with the newest spans that the query wants, as OTLP/JSON with two more fields: `spans`, their number, and
/// `truncated`, whether there are more.
pub(crate) async fn spans(request: HttpRequest, observed: web::Data<Observed>) -> HttpResponse {
    let Some(retention) = observed.retention() else {
        let why = "retention.max_bytes is 0: no spans are retained";
        return HttpResponse::NotFound().json(json!({ "error": why }));
    };
    let query = match read(request.query_string()) {
        Ok(query) => query,
        Err(why) => return HttpResponse::BadRequest().json(json!({ "error": why })),
    };
    HttpResponse::Ok().json(body(retention.find(&query).await))
}

fn body(Found { requests, spans, truncated }: Found) -> Value {
    let resources: Vec<_> = requests
        .into_iter()
        // Bytes that the log took decode.
        .filter_map(|request| ExportTraceServiceRequest::decode(request).ok())
        .flat_map(|request| request.resource_spans)
        .map(otlp_json::resource_spans)
        .collect();
    json!({ "spans": spans, "truncated": truncated, "resourceSpans": resources })
}

/// Reads a query: `trace_id`, `connection`, `name` and `limit`, each once at most.
fn read(text: &str) -> Result<SpanQuery, String> {
    let parameters = web::Query::<Vec<(String, String)>>::from_query(text)
        .map_err(|error| format!("the query cannot be read: {error}"))?
        .into_inner();
    let mut query = SpanQuery { trace_id: None, connection: None, name: None, limit: LIMIT_DEFAULT };
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in &parameters {
        if seen.contains(&key.as_str()) {
            return Err(format!("{key} is there twice: once is allowed"));
        }
        match key.as_str() {
            "trace_id" => query.trace_id = Some(value.parse().map_err(|error| format!("trace_id: {error}"))?),
            "connection" => query.connection = Some(value.clone()),
            "name" => query.name = Some(value.clone()),
            "limit" => query.limit = limit(value)?,
            other => {
                let other = shown(other);
                return Err(format!(
                    "unknown parameter {other}: {PATH} has trace_id, connection, name and limit"
                ));
            }
        }
        seen.push(key);
    }
    Ok(query)
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| format!("limit is {}: must be a whole number from 1 to {LIMIT_MAX}", shown(text)))
}

fn shown(text: &str) -> impl Display {
    format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_up_to_four_parameters() {
        let usual = SpanQuery { trace_id: None, connection: None, name: None, limit: 100 };
        assert_eq!(read(""), Ok(usual.clone()));
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            read(&format!("trace_id={trace_id}&connection=12345&name=a%20b&limit=1000")),
            Ok(SpanQuery {
                trace_id: Some(trace_id.parse().unwrap()),
                connection: Some("12345".to_owned()),
                name: Some("a b".to_owned()),
                limit: 1000,
            })
        );
    }

    #[test]
    fn what_is_no_query_is_refused_with_what_is_allowed() {
        for (text, why) in [
            ("trace_id=12", "trace_id: trace id \"12\" is not 32 hexadecimal digits"),
            ("limit=0", "limit is \"0\": must be a whole number from 1 to 1000"),
            ("limit=1001", "limit is \"1001\": must be a whole number from 1 to 1000"),
            ("limit=", "limit is \"\": must be a whole number from 1 to 1000"),
            ("name=a&name=b", "name is there twice: once is allowed"),
            (
                "trace=1",
                "unknown parameter \"trace\": /api/v1/spans has trace_id, connection, name and limit",
            ),
        ] {
            assert_eq!(read(text), Err(why.to_owned()), "{text}");
        }
    }
}
