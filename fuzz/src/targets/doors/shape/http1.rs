//! Changes to HTTP/1.1's requests.

use super::{
    super::{Protocol, http1::Head},
    requests,
};
use crate::{Rng, mutate};

/// A request as it is written: its head's lines, and its body as it goes over the wire.
struct Written {
    lines: Vec<String>,
    body: Vec<u8>,
}

impl Written {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.lines.join("\r\n").as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
    }

    fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.to_ascii_lowercase().starts_with(name))
    }

    /// With this body, framed as its head says.
    fn set(&mut self, body: &[u8], chunk: usize) {
        if self.has("transfer-encoding") {
            self.body = body
                .chunks(chunk.max(1))
                .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
                .collect();
            self.body.extend_from_slice(b"0\r\n\r\n");
        } else {
            self.lines.retain(|line| !line.to_ascii_lowercase().starts_with("content-length"));
            self.lines.push(format!("content-length: {}", body.len()));
            self.body = body.to_vec();
        }
    }
}

/// Requests one after the other, as a client would send them.
pub(super) fn fresh(door: Protocol, rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=rng.below(4) {
        new(door, rng).0.write(&mut out);
    }
    out
}

pub(super) fn changed(door: Protocol, rng: &mut Rng, mut said: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((head, rest)) = Head::of(said) {
        let Some((body, behind)) = head.body(rest) else { break };
        let headers = head.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let mut written = Written {
            lines: std::iter::once(head.first.to_owned()).chain(headers).collect(),
            body: Vec::new(),
        };
        written.set(&body, 1 + rng.below(400));
        all.push((written, body));
        said = behind;
    }
    let rest = if rng.one_in(3) { said.to_vec() } else { Vec::new() };
    for _ in 0..=rng.below(3) {
        match rng.below(4) {
            0 | 1 => all.push(new(door, rng)),
            2 if !all.is_empty() => {
                let at = rng.below(all.len());
                drop(all.remove(at));
            }
            _ => {
                let at = rng.below(all.len());
                if let Some((written, body)) = all.get_mut(at) {
                    change(rng, written, body);
                }
            }
        }
    }
    let mut out = Vec::new();
    all.iter().for_each(|(written, _)| written.write(&mut out));
    [out, rest].concat()
}

fn new(door: Protocol, rng: &mut Rng) -> (Written, Vec<u8>) {
    let new = requests::new(door, rng);
    let version = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"].get(rng.below(5)).copied();
    let first = format!("{} {} {}", new.method, new.path, version.unwrap_or("HTTP/1.1"));
    let headers = new.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let mut lines: Vec<String> = [first, "host: door".to_owned()].into_iter().chain(headers).collect();
    if rng.one_in(3) {
        lines.push("transfer-encoding: chunked".to_owned());
    }
    if rng.one_in(8) {
        lines.push("expect: 100-continue".to_owned());
    }
    let mut written = Written { lines, body: Vec::new() };
    written.set(&new.body, 1 + rng.below(400));
    (written, new.body)
}

fn change(rng: &mut Rng, written: &mut Written, body: &mut Vec<u8>) {
    let at = 1 + rng.below(written.lines.len().saturating_sub(1));
    match rng.below(8) {
        0 if at < written.lines.len() => drop(written.lines.remove(at)),
        1 => written.lines.extend(written.lines.get(at).cloned()),
        2 => written.lines.push("transfer-encoding: chunked".to_owned()),
        3 => {
            let length = body.len().wrapping_add(rng.below(5)).wrapping_sub(2);
            written.lines.push(format!("content-length: {length}"));
        }
        4 => {
            if let Some(line) = written.lines.get_mut(at) {
                line.insert_str(0, if rng.one_in(2) { " " } else { "\n" });
            }
        }
        5 => {
            let mut bytes = written.lines.first().map(|line| line.as_bytes().to_vec()).unwrap_or_default();
            mutate::mutate(rng, &mut bytes, &[]);
            if let Some(first) = written.lines.first_mut() {
                *first = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        6 => mutate::mutate(rng, &mut written.body, &[]),
        _ => {
            requests::change(rng, body);
            written.set(body, 1 + rng.below(400));
        }
    }
}
