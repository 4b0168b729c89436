//! The scripted destination over HTTP/1.1, written by hand: it can break off wherever a test wants it to.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{
    Reply, Shared,
    server::{begun, field, is_cut, judged, unzip},
};

const PROTOBUF: &str = "application/x-protobuf";

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(headers) = head(&mut stream).await? {
        let scripted = begun(&shared);
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or_default();
        let mut body = vec![0; if is_cut(scripted.as_ref()) { length.min(16) } else { length }];
        stream.read_exact(&mut body).await?;
        let message = if headers.contains_key("content-encoding") { unzip(&body) } else { body.into() };
        let reply = judged(scripted, headers, message, &shared).await;
        if !answer(&reply, &mut stream).await? {
            break;
        }
    }
    Ok(())
}

/// The head of a request, with its line as the headers `method` and `target`; nothing at the end of the connection.
async fn head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<Option<HeaderMap>> {
    let (mut headers, mut line) = (HeaderMap::new(), String::new());
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    // The first bytes were read to see what it is.
    let mut words = line.split(' ');
    for name in ["method", "target"] {
        insert(&mut headers, name, words.next().unwrap_or_default());
    }
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => insert(&mut headers, &name.to_lowercase(), value),
            None => return Ok(Some(headers)),
        }
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// True if the connection goes on.
async fn answer<S: AsyncWrite + Unpin>(reply: &Reply, stream: &mut S) -> io::Result<bool> {
    let ok = |response: ExportTraceServiceResponse| {
        (200, vec![("content-type", PROTOBUF.to_owned())], response.encode_to_vec())
    };
    let (status, mut headers, body) = match reply {
        Reply::Ok | Reply::OkThenGoAway | Reply::Late | Reply::Half => {
            ok(ExportTraceServiceResponse::default())
        }
        Reply::Partial { rejected, message } => {
            let partial =
                ExportTracePartialSuccess { rejected_spans: *rejected, error_message: message.clone() };
            ok(ExportTraceServiceResponse { partial_success: Some(partial) })
        }
        Reply::Status { code, message, retry_after } => {
            let mut headers = vec![("content-type", PROTOBUF.to_owned())];
            headers.extend(retry_after.map(|wait| ("retry-after", wait.as_secs().to_string())));
            let mut status = vec![];
            field(2, message.as_bytes(), &mut status);
            (http_status(*code, retry_after.is_some()), headers, status)
        }
        Reply::Http { status, content_type, bytes } => {
            let headers = Some(*content_type).filter(|text| !text.is_empty());
            let headers = headers.map(|content_type| ("content-type", content_type.to_owned()));
            (*status, headers.into_iter().collect(), vec![b'x'; *bytes])
        }
        Reply::Answer { status, headers, body } => (*status, headers.clone(), body.to_vec()),
        Reply::Early { status } => (*status, vec![("content-type", "text/plain".to_owned())], vec![]),
        Reply::Garbage => (200, vec![("content-type", PROTOBUF.to_owned())], vec![0xff; 64]),
        Reply::Raw(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            return Ok(false);
        }
        Reply::Stall => return std::future::pending().await,
        Reply::Reset | Reply::GoAway | Reply::Close => return Ok(false),
    };
    let goes_on = !matches!(reply, Reply::OkThenGoAway | Reply::Early { .. } | Reply::Half);
    // Half an answer is less than it says.
    let length = body.len() + if *reply == Reply::Half { 100 } else { 0 };
    headers.push(("content-length", length.to_string()));
    if !goes_on {
        headers.push(("connection", "close".to_owned()));
    }
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("HTTP/1.1 {status} Scripted\r\n{lines}\r\n").as_bytes()).await?;
    stream.write_all(&Bytes::from(body)).await?;
    stream.flush().await?;
    Ok(goes_on)
}

/// The status of OTLP over HTTP that means what this one means over gRPC.
fn http_status(code: u32, has_retry: bool) -> u16 {
    match code {
        0 => 200,
        3 => 400,
        4 => 504,
        5 | 12 => 404,
        7 => 403,
        8 if has_retry => 429,
        11 => 413,
        1 | 14 => 503,
        16 => 401,
        _ => 500,
    }
}
