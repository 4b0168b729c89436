//! Settings that contradict each other.
//!
//! They are judged by the merged values, not by the finished structs, so that they are reported together with whatever
//! else is wrong. A value that was refused already takes no part.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use config::{Map, Value, ValueKind};
use http::Uri;

use super::{
    destinations::DEFAULT,
    kinds::{Kind, bytes, duration, flag, whole, word},
    read::{Problems, at, origin_of, shown},
    self_tracing,
};

/// Every key that says where something listens.
const LISTENERS: [&str; 3] = ["ingest.grpc.listen", "ingest.http.listen", "telemetry.prometheus_addr"];

/// Notes all of them.
pub(super) fn contradictions(values: &Map<String, Value>, problems: &Problems<'_>) {
    let settings = Settings { values, problems };
    settings.sizes();
    settings.destinations();
    settings.listeners();
    settings.own_doors();
}

struct Settings<'s> {
    values: &'s Map<String, Value>,
    problems: &'s Problems<'s>,
}

/// A setting that can be judged.
struct Setting<'s, T> {
    key: String,
    value: &'s Value,
    is: T,
}

impl<T> Setting<'_, T> {
    /// With its value and its origin.
    fn named(&self) -> String {
        format!("{}, which is {}{}", self.key, shown(self.value), origin_of(self.value))
    }
}

/// A place to listen at, or to send to.
#[derive(Debug, PartialEq)]
enum Place {
    Socket(String),
    Tcp { host: String, port: u16 },
}

impl<'s> Settings<'s> {
    fn get<T: 'static>(&self, key: &str, kind: &Kind<T>) -> Option<Setting<'s, T>> {
        if self.problems.has_refused(key) {
            return None;
        }
        let value = at(self.values, key)?;
        Some(Setting { key: key.to_owned(), value, is: kind.parse(value).ok()? })
    }

    fn text(&self, key: &str) -> Option<Setting<'s, String>> {
        self.get(key, &super::kinds::text(0..=usize::MAX))
    }

    /// Notes that `low` is above `high`.
    fn not_above<T: PartialOrd>(&self, low: Option<Setting<'s, T>>, high: Option<Setting<'s, T>>) {
        if let (Some(low), Some(high)) = (low, high)
            && low.is > high.is
        {
            self.problems.refuse(&low.key, low.value, &format!("must not be above {}", high.named()));
        }
    }

    fn sizes(&self) {
        let size = |key: &str| self.get(key, &bytes(0..=u64::MAX));
        // A request that does not fit would be refused for good, each time its sender comes back.
        const REQUEST: &str = "ingest.max_request_bytes";
        self.not_above(size(REQUEST), size("ingest.max_in_flight_bytes"));
        let in_memory =
            self.get("log.durability", &word([("memory", true), ("process", false), ("power", false)]));
        match in_memory.map(|durability| durability.is) {
            Some(true) => self.not_above(size(REQUEST), size("log.memory_max_bytes")),
            Some(false) => {
                self.not_above(size(REQUEST), size("log.max_bytes"));
                // Room is made by the segment.
                if let (Some(segment), Some(log)) = (size("log.segment_bytes"), size("log.max_bytes"))
                    && segment.is > log.is / 4
                {
                    let rule = format!("must not be above a quarter of {}", log.named());
                    self.problems.refuse(&segment.key, segment.value, &rule);
                }
            }
            None => {}
        }
    }

    fn destinations(&self) {
        for name in self.destination_names() {
            let key = |leaf: &str| format!("export.{name}.{leaf}");
            let spans = |leaf: &str| self.get(&key(leaf), &whole(0..=u64::MAX));
            self.not_above(spans("batch.min_spans"), spans("batch.max_spans"));
            let wait = |leaf: &str| self.get(&key(leaf), &duration(Duration::ZERO..=Duration::MAX));
            self.not_above(wait("retry.initial"), wait("retry.max"));
        }
    }

    fn destination_names(&self) -> Vec<&'s String> {
        let Some(ValueKind::Table(export)) = self.values.get("export").map(|value| &value.kind) else {
            return Vec::new();
        };
        let mut names: Vec<_> = export.keys().collect();
        names.sort_unstable();
        names
    }

    fn listening(&self) -> Vec<(Setting<'s, String>, Place)> {
        let settings = LISTENERS.iter().filter_map(|key| self.text(key));
        settings.filter_map(|setting| listens_at(&setting.is).map(|place| (setting, place))).collect()
    }

    fn listeners(&self) {
        let listening = self.listening();
        for (index, (later, place)) in listening.iter().enumerate() {
            let clash = listening.iter().take(index).find(|(_, earlier)| overlap(earlier, place));
            if let Some((earlier, _)) = clash {
                let rule = format!("must not be the address of {}", earlier.named());
                self.problems.refuse(&later.key, later.value, &rule);
            }
        }
    }

    /// Spans that nyx sends to itself would go round for ever.
    fn own_doors(&self) {
        let exported = self.get("telemetry.span_export_enabled", &flag()).is_none_or(|enabled| enabled.is);
        let names = if exported { self.destination_names() } else { Vec::new() };
        let of_destinations = names.into_iter().map(|name| match name.as_str() {
            DEFAULT => "telemetry.otlp_endpoint".to_owned(),
            name => format!("export.{name}.endpoint"),
        });
        let listening = self.listening();
        for key in of_destinations.chain([format!("{}.endpoint", self_tracing::TABLE)]) {
            let Some(endpoint) = self.text(&key) else { continue };
            let Some(place) = sends_to(&endpoint.is) else { continue };
            if let Some((door, _)) = listening.iter().find(|(_, own)| reaches(&place, own)) {
                let cause = if key.starts_with("telemetry.") {
                    "; an OTEL_EXPORTER_OTLP_ENDPOINT that is set for the whole host, so that programs send to nyx, may be the \
                     cause: unset it for nyx itself"
                } else {
                    ""
                };
                let rule = format!(
                    "must not be where this daemon itself listens ({}): what it sends would come back for ever{cause}",
                    door.key
                );
                self.problems.refuse(&key, endpoint.value, &rule);
            }
        }
    }
}

fn listens_at(text: &str) -> Option<Place> {
    if let Some(path) = socket(text) {
        return Some(path);
    }
    let address: SocketAddr = text.parse().ok()?;
    // Port 0 is any free one.
    (address.port() != 0).then(|| Place::Tcp { host: address.ip().to_string(), port: address.port() })
}

fn sends_to(text: &str) -> Option<Place> {
    if let Some(path) = socket(text) {
        return Some(path);
    }
    let uri: Uri = text.parse().ok()?;
    let host = uri.host()?;
    let https_port = (uri.scheme_str() == Some("https")).then_some(443);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(Place::Tcp { host: host.to_ascii_lowercase(), port: uri.port_u16().or(https_port)? })
}

fn socket(text: &str) -> Option<Place> {
    let path = text.strip_prefix("unix:")?;
    Some(Place::Socket(path.strip_prefix("//").unwrap_or(path).to_owned()))
}

/// Whether two cannot listen at once.
fn overlap(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Socket(one), Place::Socket(other)) => one == other,
        (Place::Tcp { host: one, port }, Place::Tcp { host: other, port: other_port }) => {
            let any = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
            port == other_port && (one == other || any(one) || any(other))
        }
        _ => false,
    }
}

/// Whether who sends to `to` comes to what listens at `own`. Other names of this machine are not looked up.
fn reaches(to: &Place, own: &Place) -> bool {
    match (to, own) {
        (Place::Socket(to), Place::Socket(own)) => to == own,
        (Place::Tcp { host: to, port }, Place::Tcp { host: own, port: own_port }) => {
            // ::ffff:127.0.0.1 is 127.0.0.1.
            let ip = |host: &str| host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
            let (to_ip, own_ip) = (ip(to), ip(own));
            let to_itself =
                to == "localhost" || to_ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
            let own_is_near = own_ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
            // 127.0.0.2 is not 127.0.0.1, but whoever sends there means this machine.
            port == own_port && (to == own || to_itself && own_is_near)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_overlap_where_the_system_gives_the_port_once() {
        for (one, other, clash) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.2:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("unix:/a", "unix:///a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:1", false),
        ] {
            let [one, other] = [one, other].map(|text| listens_at(text).unwrap());
            assert_eq!(overlap(&one, &other), clash, "{one:?} {other:?}");
            assert_eq!(overlap(&other, &one), clash, "{other:?} {one:?}");
        }
        assert_eq!(listens_at("127.0.0.1:0"), None);
        assert_eq!(listens_at(""), None);
    }

    #[test]
    fn an_endpoint_reaches_a_listener_by_every_name_of_this_machine_that_needs_no_lookup() {
        for (to, own, comes) in [
            ("http://127.0.0.1:1", "127.0.0.1:1", true),
            ("http://LOCALHOST:1/", "127.0.0.1:1", true),
            ("http://localhost:1", "[::1]:1", true),
            ("http://[::1]:1", "[::]:1", true),
            ("http://0.0.0.0:1", "127.0.0.1:1", true),
            ("http://[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("http://10.0.0.1:1", "10.0.0.1:1", true),
            ("http://localhost:1", "10.0.0.1:1", false),
            ("http://localhost:2", "127.0.0.1:1", false),
            ("http://collector:1", "0.0.0.0:1", false),
            ("https://localhost:1", "0.0.0.0:1", true),
            ("https://localhost", "127.0.0.1:443", true),
            ("unix:///a", "unix:/a", true),
        ] {
            let (to, own) = (sends_to(to).unwrap(), listens_at(own).unwrap());
            assert_eq!(reaches(&to, &own), comes, "{to:?} {own:?}");
        }
    }
}
