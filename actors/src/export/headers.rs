//! Headers of a destination's requests (level 0: pure). Their values are secrets: no error repeats one.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers of one destination.
const HEADERS_MAX: usize = 64;
/// Bytes of all their names and values.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Names that a transport writes itself, or whose meaning it does not keep, besides all that start with `grpc-`.
const RESERVED: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// A header that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderProblem {
    /// The header; `None` where it is all of them together.
    pub name: Option<String>,
    /// What is wrong or allowed.
    pub rule: String,
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name:?} {}", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

/// Checks headers: at most 64 of 16 KiB in all, each name once and not one of the transport's own, values of
/// printable ASCII characters, which are marked as sensitive.
///
/// # Errors
/// Every [`HeaderProblem`].
pub fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, Vec<HeaderProblem>> {
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    let count = pairs.len();
    if count > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let rule = format!(
            "has {count} headers of {bytes} bytes: must have at most {HEADERS_MAX} of {HEADER_BYTES_MAX}"
        );
        return Err(vec![HeaderProblem { name: None, rule }]);
    }
    let mut headers = HeaderMap::with_capacity(count);
    let mut problems = Vec::new();
    for (name, value) in pairs {
        let rule = match header(name, value) {
            Ok((name, _)) if headers.contains_key(&name) => "must be set once",
            Ok((name, value)) => {
                headers.insert(name, value);
                continue;
            }
            Err(rule) => rule,
        };
        problems.push(HeaderProblem { name: Some(name.clone()), rule: rule.to_owned() });
    }
    if problems.is_empty() { Ok(headers) } else { Err(problems) }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name: HeaderName = name.parse().map_err(|_| "must be named as an HTTP header is")?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
        return Err("is set by the exporter itself: must not be set");
    }
    if name.as_str().ends_with("-bin") {
        return Err("is binary (-bin): cannot be set");
    }
    let mut value = HeaderValue::from_str(value)
        .ok()
        .filter(|value| value.to_str().is_ok())
        .ok_or("must have a value of printable ASCII characters (the value is not shown)")?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)]) -> Vec<String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        headers(&pairs).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_header_that_cannot_be_sent_is_named_without_its_value() {
        let problems = refused(&[
            ("a b", "hush"),
            ("TE", "hush"),
            ("grpc-timeout", "hush"),
            ("x-bin", "hush"),
            ("x", "hush\n"),
            ("y", "hüsh"),
            ("z", "1"),
            ("Z", "2"),
        ]);
        assert_eq!(
            problems,
            [
                "\"a b\" must be named as an HTTP header is",
                "\"TE\" is set by the exporter itself: must not be set",
                "\"grpc-timeout\" is set by the exporter itself: must not be set",
                "\"x-bin\" is binary (-bin): cannot be set",
                "\"x\" must have a value of printable ASCII characters (the value is not shown)",
                "\"y\" must have a value of printable ASCII characters (the value is not shown)",
                "\"Z\" must be set once",
            ]
        );
    }

    #[test]
    fn headers_are_bounded_in_number_and_size() {
        let names: Vec<String> = (0..65).map(|n| format!("h{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(refused(&many), ["has 65 headers of 185 bytes: must have at most 64 of 16384"]);
        let large = "x".repeat(16_384);
        assert_eq!(
            refused(&[("a", &large)]),
            ["has 1 headers of 16385 bytes: must have at most 64 of 16384"]
        );
    }
}
