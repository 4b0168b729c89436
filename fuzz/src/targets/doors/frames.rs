//! HTTP/2 as it is on the wire (RFC 9113, section 4.1), read and written by the drawing alone.
//!
//! ```text
//!  0           3      4       5           9            9 + length
//!  ├───────────┼──────┼───────┼───────────┼────────────┤
//!  │ length    │ type │ flags │ stream id │ payload    │
//!  └───────────┴──────┴───────┴───────────┴────────────┘
//! ```

/// What an HTTP/2 client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// A frame. Its length on the wire is that of its payload, unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
    pub(super) length: Option<u32>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Self {
        Self { kind, flags, stream, payload, length: None }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA without its padding.
    pub(super) fn data(&self) -> &[u8] {
        if !self.has(PADDED) {
            return &self.payload;
        }
        let Some((&padding, rest)) = self.payload.split_first() else { return &[] };
        rest.get(..rest.len().saturating_sub(padding.into())).unwrap_or_default()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let length = self.length.unwrap_or(self.payload.len() as u32);
        out.extend_from_slice(length.to_be_bytes().get(1..).unwrap_or_default());
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// The frames in these bytes, and what is left behind the last whole one.
pub(super) fn read(mut bytes: &[u8]) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) = bytes.split_first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff;
        frames.push(Frame::new(kind, flags, stream, payload.to_vec()));
        bytes = rest;
    }
    (frames, bytes)
}

/// Frames as they go over the wire.
pub(super) fn write(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut out));
    out
}

/// A header list without indexing and without Huffman (RFC 7541, section 6.2.2).
pub(super) fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in headers {
        out.push(0);
        for text in [name, value] {
            // A length below 127 is one byte, a longer one 127 and the rest in sevens.
            let mut rest = match text.len() {
                short @ ..127 => {
                    out.push(short as u8);
                    None
                }
                long => {
                    out.push(127);
                    Some(long - 127)
                }
            };
            while let Some(left) = rest {
                let more = left > 127;
                out.push((left % 128) as u8 | if more { 128 } else { 0 });
                rest = more.then_some(left / 128);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// Whether a header block of a response begins with `:status 200`, whatever it says of its table's size before.
pub(super) fn is_ok(block: &[u8]) -> bool {
    let mut rest = block.iter();
    loop {
        match rest.next() {
            // A change of the dynamic table's size: five bits, and more bytes where all are set.
            Some(&byte) if byte & 0xe0 == 0x20 => {
                if byte & 0x1f == 0x1f {
                    while rest.next().is_some_and(|more| more & 0x80 != 0) {}
                }
            }
            first => return first == Some(&0x88),
        }
    }
}
