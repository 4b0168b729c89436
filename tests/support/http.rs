//! A GET as a browser or Prometheus makes it, and what is to be seen on a metrics page.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.content_type, "application/json", "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Gets a page, waiting on this thread.
pub fn get_blocking(at: SocketAddr, path: &str, accept: Option<&str>) -> Answer {
    get_with(at, path, accept.map(|accept| ("accept", accept)).as_slice())
}

/// Gets a page with these headers, waiting on this thread.
pub fn get_with(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = ask(at, "GET", path, headers);
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(answer.body.len(), length, "{}", answer.head);
    answer
}

/// Asks for a page by this method, waiting on this thread.
pub fn ask(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {at}\r\n{headers}connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer =
        Answer { status, content_type: String::new(), head: head.to_owned(), body: body.to_owned() };
    answer.content_type = answer.header("content-type").unwrap_or_default().to_owned();
    answer
}

/// Gets a page while this thread's actors go on.
pub async fn get(at: SocketAddr, path: &str, accept: Option<&str>) -> Answer {
    let (path, accept) = (path.to_owned(), accept.map(str::to_owned));
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(get_blocking(at, &path, accept.as_deref())));
    told.await.unwrap()
}

/// A metrics page: each sample's name, labels as written, and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples(pub BTreeMap<(String, String), f64>);

impl Samples {
    /// Reads a page; every line that is no comment has to be a sample, and no sample comes twice.
    pub fn parse(page: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            // An exemplar stands behind its bucket's value.
            let line = line.split(" # {trace_id=").next().unwrap_or(line);
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => {
                    (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line:?}")))
                }
                None => (series, ""),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(!name.is_empty() && name.chars().all(plain), "{line:?}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
            let before = samples.insert((name.to_owned(), labels.to_owned()), value);
            assert_eq!(before, None, "{line:?} comes twice");
        }
        Self(samples)
    }

    /// The samples of this name whose labels contain all of these.
    pub fn select<'a>(&'a self, name: &'a str, labels: &'a [&'a str]) -> impl Iterator<Item = f64> + 'a {
        let samples = self
            .0
            .iter()
            .filter(move |((of, with), _)| of == name && labels.iter().all(|label| with.contains(label)));
        samples.map(|(_, value)| *value)
    }

    /// Their sum.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.select(name, labels).sum()
    }
}
