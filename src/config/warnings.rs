//! What works and is perhaps not what an operator wants.

use std::net::SocketAddr;

use nyx_telemetry::accept::ListenAddr;

use super::{
    Config, DoorTls, Values,
    read::{at, origin_of, shown},
};

/// All of it, each a line that names the key, its value, and what to do.
pub(super) fn of(config: &Config, values: &Values) -> Vec<String> {
    let Config { ingest, telemetry, .. } = config;
    let about = |key: &str, why: String| {
        let value = at(values, key).map(|value| format!(" is {}{}", shown(value), origin_of(value)));
        format!("{key}{}: {why}", value.unwrap_or_default())
    };
    let files = [
        (TOKEN_FILE, ingest.token_file.as_ref()),
        (PAGES_TOKEN_FILE, telemetry.prometheus_token_file.as_ref()),
    ];
    let files = files.into_iter().filter_map(|(key, file)| {
        let mode = file?.open_mode?;
        Some(about(
            key,
            format!(
                "every user of this machine may read it (mode {mode:04o}): take that away with chmod o-r"
            ),
        ))
    });
    let doors = [
        ("ingest.grpc.listen", ingest.grpc.listen.as_ref().and_then(tcp), &ingest.grpc.tls),
        ("ingest.http.listen", ingest.http.listen.as_ref().and_then(tcp), &ingest.http.tls),
    ];
    let asks_nobody = |tls: &DoorTls| ingest.token_file.is_none() && tls.files().client_ca_file.is_none();
    let doors = doors.into_iter().filter(|(_, _, tls)| asks_nobody(tls)).filter_map(|(key, address, _)| {
        let why = format!("whoever reaches it may send spans: set {TOKEN_FILE}, or listen on 127.0.0.1");
        reaches_far(address?).then(|| about(key, why))
    });
    let pages = (telemetry.prometheus_token_file.is_none() && reaches_far(telemetry.prometheus_addr)).then(|| {
        let why = format!("whoever reaches it may read spans and metrics: set {PAGES_TOKEN_FILE}, or listen on 127.0.0.1");
        about("telemetry.prometheus_addr", why)
    });
    // As in a Nyx node's file as it ships.
    let nothing = (config.export.is_empty() && !telemetry.prometheus_enabled).then(|| {
        let why = "so is telemetry.span_export_enabled: spans are taken, and neither measured nor exported: set one of them to true";
        about("telemetry.prometheus_enabled", why.to_owned())
    });
    files.chain(doors).chain(pages).chain(nothing).collect()
}

const TOKEN_FILE: &str = "ingest.token_file";
const PAGES_TOKEN_FILE: &str = "telemetry.prometheus_token_file";

fn tcp(listen: &ListenAddr) -> Option<SocketAddr> {
    match listen {
        ListenAddr::Tcp(address) => Some(*address),
        ListenAddr::Unix(_) => None,
    }
}

/// Whether another machine may come there.
fn reaches_far(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
