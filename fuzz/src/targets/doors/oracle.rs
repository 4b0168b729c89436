//! Which requests of a connection were answered with success, read from what went over it in both directions.

use std::collections::BTreeMap;

use super::{
    Protocol,
    frames::{self, DATA, END_STREAM, Frame, GOAWAY, HEADERS, PREFACE, RST_STREAM, is_ok},
    http1::Head,
    message::Message,
};

/// What was heard on a connection.
pub(super) struct Heard {
    /// What the client spoke.
    pub(super) spoke: &'static str,
    /// Answers with success.
    pub(super) successes: u64,
    /// The messages of the requests that they are to, as far as they are in no doubt.
    pub(super) taken: Vec<Message>,
    /// What else there was among the answers.
    pub(super) words: Vec<&'static str>,
}

pub(super) fn heard(protocol: Protocol, said: &[u8], answers: &[u8]) -> Heard {
    match said.strip_prefix(PREFACE) {
        Some(said) => http2(protocol, said, answers),
        None if protocol == Protocol::Http => http1(said, answers),
        None => Heard { spoke: "no http2", successes: 0, taken: Vec::new(), words: Vec::new() },
    }
}

fn http2(protocol: Protocol, said: &[u8], answers: &[u8]) -> Heard {
    let (answers, _) = frames::read(answers);
    let mut words = Vec::new();
    let mut succeeded: BTreeMap<u32, bool> = BTreeMap::new();
    // Streams, and with 0 all of them, of which more came than there should.
    let mut in_doubt = Vec::new();
    for Frame { kind, stream, payload, .. } in &answers {
        match (*kind, protocol) {
            // A refusal over gRPC is headers alone.
            (DATA, Protocol::Grpc) if !payload.is_empty() => {
                succeeded.insert(*stream, true);
            }
            (HEADERS, Protocol::Http) => {
                succeeded.entry(*stream).or_insert_with(|| is_ok(payload));
            }
            (RST_STREAM, _) => {
                words.push("reset");
                in_doubt.extend((!payload.ends_with(&[0; 4])).then_some(*stream));
            }
            (GOAWAY, _) => {
                words.push("goaway");
                in_doubt.extend(payload.get(4..8).is_none_or(|code| code != [0; 4]).then_some(0));
            }
            _ => {}
        }
    }
    succeeded.retain(|_, success| *success);
    // What has come of each body after each of its frames.
    let mut bodies: BTreeMap<u32, (Vec<Vec<u8>>, bool)> = BTreeMap::new();
    for frame in frames::read(said).0 {
        let (body, over) = bodies.entry(frame.stream).or_insert_with(|| (vec![Vec::new()], false));
        if matches!(frame.kind, DATA | HEADERS) && !*over {
            if frame.kind == DATA {
                let before = body.last().map(Vec::as_slice).unwrap_or_default();
                body.push([before, frame.data()].concat());
            }
            *over = frame.has(END_STREAM);
        }
    }
    let taken: Vec<_> = succeeded
        .keys()
        .filter_map(|stream| {
            let (mut body, _) = bodies.get(stream)?.clone();
            Some(match protocol {
                Protocol::Grpc => Message::Framed(body.pop()?),
                Protocol::Http if in_doubt.iter().any(|doubt| [0, *stream].contains(doubt)) => {
                    Message::Grown(body)
                }
                Protocol::Http => Message::Body(body.pop()?),
            })
        })
        .collect();
    Heard { spoke: "http2", successes: succeeded.len() as u64, taken, words }
}

/// Requests and answers follow one another; the answer to one that is in doubt is only counted, and so are all behind it.
fn http1(mut said: &[u8], mut answers: &[u8]) -> Heard {
    let mut heard = Heard { spoke: "http1", successes: 0, taken: Vec::new(), words: Vec::new() };
    let mut in_doubt = false;
    while let Some((head, rest)) = Head::of(answers) {
        if head.first.starts_with("HTTP/1.1 100") {
            heard.words.push("continue");
            answers = rest;
            continue;
        }
        let Some((_, rest)) = head.body(rest) else { break };
        answers = rest;
        let success = head.first.starts_with("HTTP/1.1 200") || head.first.starts_with("HTTP/1.0 200");
        heard.successes += u64::from(success);
        let asked = Head::of(said).and_then(|(head, rest)| head.body(rest));
        match asked.filter(|_| !in_doubt) {
            Some((body, rest)) => {
                said = rest;
                if success {
                    heard.taken.push(Message::Body(body));
                }
            }
            None => {
                in_doubt = true;
                heard.words.push("in doubt");
            }
        }
    }
    heard
}
