//! Holds HTTP/2 connections open without a request on them, as idle clients do: each says its preface, answers
//! SETTINGS and PING by hand and waits for the server to end it.
//! (<https://www.rfc-editor.org/rfc/rfc9113>, sections 3.4, 4.1, 6.5, 6.7 and 6.8)

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::cli::say;
use crate::sink::lock;
use crate::tally::seconds;

/// Connections that are opened at the same time.
const OPENING_MAX: usize = 128;
/// Kinds of faults kept in words.
const EXAMPLES_MAX: usize = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;
/// The largest payload that a peer may send unasked.
const PAYLOAD_MAX: usize = 16_384;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// What to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    /// Connections are given up after this, from the start.
    pub(crate) limit: Duration,
}

/// What became of the connections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Connections on which the server's SETTINGS came.
    pub(crate) opened: usize,
    /// Connections that failed before that.
    pub(crate) failed: usize,
    /// From the start until the last was open.
    pub(crate) open_s: f64,
    /// Pings answered.
    pub(crate) pings: u64,
    /// Connections that the server ended after a GOAWAY.
    pub(crate) ended_in_order: usize,
    /// Connections that ended without one.
    pub(crate) cut_off: usize,
    /// Connections that this side ended, at the limit.
    pub(crate) still_open: usize,
    /// The first few faults, in words.
    pub(crate) examples: Vec<String>,
}

/// Raises this process' soft limit of open files to the hard one, if that is enough for so many connections.
///
/// # Errors
/// With both numbers.
pub(crate) fn raise_open_files(connections: usize) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 64;
    if limit.maximum.is_some_and(|hard| hard < needed) {
        let hard = limit.maximum.unwrap_or_default();
        return Err(format!("{connections} connections take {needed} files, the hard limit is {hard}"));
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|why| format!("cannot raise the file limit: {why}"))
}

/// Opens the connections and holds them until the server has ended them all, or the limit.
pub(crate) async fn run(plan: Plan) -> Report {
    let started = Instant::now();
    let report = Arc::new(Mutex::new(Report::default()));
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let mut held = JoinSet::new();
    for _ in 0..plan.connections {
        let line = Line { plan, started, report: report.clone(), opening: opening.clone() };
        #[allow(clippy::disallowed_methods, reason = "a plain program without actors")]
        held.spawn(line.hold());
    }
    while held.join_next().await.is_some() {}
    lock(&report).clone()
}

/// One connection.
struct Line {
    plan: Plan,
    started: Instant,
    report: Arc<Mutex<Report>>,
    opening: Arc<Semaphore>,
}

impl Line {
    async fn hold(self) {
        let until = self.started + self.plan.limit;
        let opened = match timeout_at(until, self.open()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return self.failed(&why.to_string()),
            Err(_) => return self.failed("not open in time"),
        };
        self.count_opened();
        let mut stream = opened;
        let mut told = false;
        let end = timeout_at(until, self.answer(&mut stream, &mut told)).await;
        let mut report = lock(&self.report);
        match end {
            Err(_) => report.still_open += 1,
            // Once it has said that it goes, how the server closes is its own affair.
            Ok(_) if told => report.ended_in_order += 1,
            Ok(end) => {
                report.cut_off += 1;
                let why = end.err().map_or_else(|| "closed without GOAWAY".to_owned(), |why| why.to_string());
                example(&mut report, why);
            }
        }
    }

    /// Connects, and waits for the first SETTINGS.
    async fn open(&self) -> std::io::Result<TcpStream> {
        let _turn = self.opening.acquire().await.map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect(self.plan.target).await?;
        stream.set_nodelay(true)?;
        let mut hello = PREFACE.to_vec();
        hello.extend_from_slice(&header(0, SETTINGS, 0));
        stream.write_all(&hello).await?;
        match read(&mut stream).await? {
            Some((SETTINGS, _, _)) => stream.write_all(&header(0, SETTINGS, ACK)).await?,
            Some((kind, ..)) => {
                return Err(std::io::Error::other(format!("first frame is of type {kind}")));
            }
            None => return Err(std::io::Error::other("closed before its SETTINGS")),
        }
        Ok(stream)
    }

    /// Answers what has to be answered, to the connection's end.
    async fn answer(&self, stream: &mut TcpStream, told: &mut bool) -> std::io::Result<()> {
        while let Some((kind, flags, payload)) = read(stream).await? {
            match (kind, flags & ACK) {
                (SETTINGS, 0) => stream.write_all(&header(0, SETTINGS, ACK)).await?,
                (PING, 0) => {
                    let mut pong = header(payload.len(), PING, ACK).to_vec();
                    pong.extend_from_slice(&payload);
                    stream.write_all(&pong).await?;
                    lock(&self.report).pings += 1;
                }
                (GOAWAY, _) => *told = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn count_opened(&self) {
        let mut report = lock(&self.report);
        report.opened += 1;
        report.open_s = seconds(self.started.elapsed());
        if report.opened == self.plan.connections {
            say(&format!("all {} connections are open", report.opened));
        }
    }

    fn failed(&self, why: &str) {
        let mut report = lock(&self.report);
        report.failed += 1;
        example(&mut report, why.to_owned());
    }
}

fn example(report: &mut Report, words: String) {
    if report.examples.len() < EXAMPLES_MAX && !report.examples.contains(&words) {
        report.examples.push(words);
    }
}

/// A frame's header, on stream 0.
fn header(payload_len: usize, kind: u8, flags: u8) -> [u8; HEADER_LEN] {
    let [_, high, middle, low] = (payload_len as u32).to_be_bytes();
    [high, middle, low, kind, flags, 0, 0, 0, 0]
}

/// The next frame: type, flags and payload. None at the end.
async fn read(stream: &mut TcpStream) -> std::io::Result<Option<(u8, u8, Vec<u8>)>> {
    let mut header = [0; HEADER_LEN];
    match stream.read_exact(&mut header).await {
        Ok(_) => {}
        Err(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(why) => return Err(why),
    }
    let [high, middle, low, kind, flags, ..] = header;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > PAYLOAD_MAX {
        return Err(std::io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok(Some((kind, flags, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that pings each of its connections once, and then takes leave of it.
    async fn serve_and_leave(listener: tokio::net::TcpListener, connections: usize, goodbye: bool) {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; PREFACE.len() + HEADER_LEN];
            stream.read_exact(&mut hello).await.unwrap();
            assert!(hello.starts_with(PREFACE));
            stream.write_all(&header(0, SETTINGS, 0)).await.unwrap();
            assert_eq!(read(&mut stream).await.unwrap(), Some((SETTINGS, ACK, vec![])));
            stream.write_all(&header(8, PING, 0)).await.unwrap();
            stream.write_all(b"8 octets").await.unwrap();
            assert_eq!(read(&mut stream).await.unwrap(), Some((PING, ACK, b"8 octets".to_vec())));
            if goodbye {
                stream.write_all(&header(8, GOAWAY, 0)).await.unwrap();
                stream.write_all(&[0; 8]).await.unwrap();
            }
        }
    }

    async fn hold(goodbye: bool) -> Report {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let plan = Plan { target, connections: 3, limit: Duration::from_secs(60) };
        tokio::join!(run(plan), serve_and_leave(listener, 3, goodbye)).0
    }

    #[tokio::test]
    async fn a_held_connection_answers_pings_until_the_server_says_goodbye() {
        let report = hold(true).await;
        assert_eq!((report.opened, report.failed, report.pings), (3, 0, 3), "{report:?}");
        assert_eq!((report.ended_in_order, report.cut_off, report.still_open), (3, 0, 0), "{report:?}");
    }

    #[tokio::test]
    async fn a_connection_that_ends_without_goodbye_counts_as_cut_off() {
        let report = hold(false).await;
        assert_eq!((report.opened, report.ended_in_order, report.cut_off), (3, 0, 3), "{report:?}");
        assert_eq!(report.examples, ["closed without GOAWAY"]);
    }
}
