//! HTTP/1.1 as it is on the wire (RFC 9112), read by the plainest of its rules: what is in doubt is not read.

/// A message: its first line, its headers, and where its body ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head<'b> {
    pub(super) first: &'b str,
    pub(super) headers: Vec<(&'b str, &'b str)>,
}

impl<'b> Head<'b> {
    /// The head that these bytes begin with, and what is behind it.
    pub(super) fn of(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
        let (head, rest) = bytes.split_at_checked(at)?;
        let text = str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let first = lines.next()?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            headers.push((name, value.trim_matches([' ', '\t'])));
        }
        let plain = !text.replace("\r\n", "").contains(['\r', '\n']) && !first.is_empty();
        plain.then_some((Self { first, headers }, rest.get(4..)?))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'b str> {
        let named = self.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value)
    }

    /// The body behind this head, and what is behind that; `None` where it is not whole or in doubt.
    pub(super) fn body(&self, rest: &'b [u8]) -> Option<(Vec<u8>, &'b [u8])> {
        let lengths: Vec<_> = self.values("content-length").collect();
        let codings: Vec<_> = self.values("transfer-encoding").collect();
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Some((Vec::new(), rest)),
            ([length], []) if length.bytes().all(|digit| digit.is_ascii_digit()) => {
                let (body, rest) = rest.split_at_checked(length.parse().ok()?)?;
                Some((body.to_vec(), rest))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => chunks(rest),
            _ => None,
        }
    }
}

/// A body in chunks (section 7.1), without extensions and trailers.
fn chunks(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|end| end == b"\r\n")?;
        let (length, behind) = (rest.get(..end)?, rest.get(end + 2..)?);
        let digits = length.iter().all(u8::is_ascii_hexdigit);
        let length = usize::from_str_radix(str::from_utf8(length).ok().filter(|_| digits)?, 16).ok()?;
        let (chunk, behind) = behind.split_at_checked(length)?;
        rest = behind.strip_prefix(b"\r\n")?;
        body.extend_from_slice(chunk);
        if length == 0 {
            return Some((body, rest));
        }
    }
}
