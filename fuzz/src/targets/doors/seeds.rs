//! What hyper's client sends, caught on its way to a door, and requests written by hand.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Builder,
};

use super::{
    HEAD, PIPE, Protocol, Script, World, collect, frames,
    shape::{EXPORT, TRACES, framed, packed},
};
use crate::targets::{Seeds, json, spans};
use nyx_telemetry::accept::Accepted;

type Post = Request<Full<Bytes>>;

/// What is before the bytes: a good world, and a client that reads on.
const GOOD: [u8; HEAD] = [0; HEAD];

fn post(path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> io::Result<Post> {
    let mut request = Request::post(format!("http://door{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).map_err(io::Error::other)
}

/// How a client speaks.
#[derive(Clone, Copy)]
enum Speaks {
    Http1,
    Http2,
}

/// What the client says in its requests, one after the other, each answered with success.
fn caught(protocol: Protocol, speaks: Speaks, posts: Vec<Post>) -> io::Result<Vec<u8>> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let (script, world) = (Script::of(&GOOD), World::new(&Script::of(&GOOD)));
        let (door, batches) = world.door(protocol, &script);
        let (client, near) = duplex(PIPE);
        let (far, served) = duplex(PIPE);
        let (said, serving, (), asked) = tokio::join!(
            pass_on(near, far),
            door.serve(Accepted::Memory(served), Box::pin(std::future::pending())),
            collect(0, Arc::clone(&world.log), batches),
            ask(client, speaks, posts),
        );
        let () = serving;
        asked?;
        Ok([&GOOD[..], &said].concat())
    })
}

/// Passes on what goes between the two ends; what came from the near one.
async fn pass_on(near: DuplexStream, far: DuplexStream) -> Vec<u8> {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let there = async {
        let mut said = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = from_near.read(&mut piece).await {
            let piece = piece.get(..length).unwrap_or_default();
            said.extend_from_slice(piece);
            if to_far.write_all(piece).await.is_err() {
                break;
            }
        }
        let _over = to_far.shutdown().await;
        said
    };
    let back = async {
        let _over = tokio::io::copy(&mut from_far, &mut to_near).await;
        let _over = to_near.shutdown().await;
    };
    let (said, ()) = tokio::join!(there, back);
    said
}

async fn ask(stream: DuplexStream, speaks: Speaks, posts: Vec<Post>) -> io::Result<()> {
    let io = TokioIo::new(stream);
    match speaks {
        Speaks::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            let asking = async {
                for post in posts {
                    sender.ready().await.map_err(io::Error::other)?;
                    answered(sender.send_request(post).await).await?;
                }
                drop(sender);
                io::Result::Ok(())
            };
            let (_over, asked) = tokio::join!(connection, asking);
            asked
        }
        Speaks::Http2 => {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
            let asking = async {
                let mut sender = sender;
                for post in posts {
                    answered(sender.send_request(post).await).await?;
                }
                drop(sender);
                io::Result::Ok(())
            };
            let (_over, asked) = tokio::join!(connection, asking);
            asked
        }
    }
}

async fn answered(answer: hyper::Result<http::Response<hyper::body::Incoming>>) -> io::Result<()> {
    let answer = answer.map_err(io::Error::other)?;
    let status = answer.status();
    answer.into_body().collect().await.map_err(io::Error::other)?;
    if status == 200 { Ok(()) } else { Err(io::Error::other(format!("a seed is answered {status}"))) }
}

fn request(name: &str) -> io::Result<Vec<u8>> {
    let known = spans::request_seeds()?.into_iter().chain(json::seeds()?);
    let found = known.into_iter().find(|(found, _)| *found == name).map(|(_, bytes)| bytes);
    found.ok_or_else(|| io::Error::other(format!("there is no request {name}")))
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

pub(in super::super) fn grpc() -> Seeds {
    let (one, many) = (request("one")?, request("many")?);
    let sender =
        [GRPC, ("te", "trailers"), ("user-agent", "OTel-OTLP-Exporter/1.0"), ("grpc-timeout", "10S")];
    let gzip = [&sender[..], &[("grpc-encoding", "gzip")]].concat();
    let speaks = |posts| caught(Protocol::Grpc, Speaks::Http2, posts);
    let plain = speaks(vec![post(EXPORT, &sender, framed(0, &one))?])?;
    let zipped = speaks(vec![post(EXPORT, &gzip, framed(1, &packed(&many)))?])?;
    let several = speaks(vec![
        post(EXPORT, &sender, framed(0, &many))?,
        post(EXPORT, &gzip, framed(0, &one))?,
        post(EXPORT, &sender, framed(0, b""))?,
    ])?;
    let http1 = [&GOOD[..], b"GET / HTTP/1.1\r\nhost: door\r\n\r\n"].concat();
    let mut closed = plain.clone();
    closed.splice(1..2, [1]);
    let preface = [&GOOD[..], frames::PREFACE].concat();
    Ok(vec![
        ("plain", plain),
        ("packed", zipped),
        ("several", several),
        ("of_http1", http1),
        ("closed", closed),
        ("preface_alone", preface),
    ])
}

pub(in super::super) fn http() -> Seeds {
    let (one, many, json) = (request("one")?, request("many")?, request("two_spans")?);
    let posts = || -> io::Result<Vec<Post>> {
        Ok(vec![
            post(TRACES, &[PROTOBUF, ("host", "door")], many.clone())?,
            post(TRACES, &[JSON, ("host", "door")], json.clone())?,
            post(TRACES, &[PROTOBUF, ("host", "door"), ("content-encoding", "gzip")], packed(&one))?,
        ])
    };
    let over_http1 = caught(Protocol::Http, Speaks::Http1, posts()?)?;
    let over_http2 = caught(Protocol::Http, Speaks::Http2, posts()?)?;
    let chunked = [
        &GOOD[..],
        b"POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: application/x-protobuf\r\n\
          transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n",
        format!("{:x}\r\n", one.len()).as_bytes(),
        &one,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let refused = [
        &GOOD[..],
        b"GET /metrics HTTP/1.1\r\nhost: door\r\n\r\nPOST /v1/traces HTTP/1.1\r\nhost: door\r\n\
          content-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
    ]
    .concat();
    let cut = over_http1.get(..over_http1.len() / 5).unwrap_or_default().to_vec();
    Ok(vec![
        ("over_http1", over_http1),
        ("over_http2", over_http2),
        ("chunked", chunked),
        ("refused", refused),
        ("cut", cut),
    ])
}
