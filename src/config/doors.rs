//! TLS at the doors: what their files hold, which is read with the configuration and judged with it.

use std::path::{Path, PathBuf};

use nyx_telemetry::{
    accept::ListenAddr,
    tls::{ServerTls, ServerTlsFiles},
};

use super::{
    Values,
    read::{Problems, at, origin_of},
    settings::{DoorTls, Ingest},
};

impl DoorTls {
    /// The files that are set.
    pub fn files(&self) -> ServerTlsFiles {
        let set = |path: &Path| Some(path).filter(|path| !path.as_os_str().is_empty()).map(PathBuf::from);
        ServerTlsFiles {
            cert_file: set(&self.cert_file),
            key_file: set(&self.key_file),
            client_ca_file: set(&self.client_ca_file),
        }
    }
}

/// The TLS of the doors that have it, as their files are now.
#[derive(Debug, Clone, Default)]
pub struct DoorsTls {
    /// Of the OTLP/gRPC door.
    pub grpc: Option<ServerTls>,
    /// Of the OTLP/HTTP door.
    pub http: Option<ServerTls>,
}

impl DoorsTls {
    /// Reads the files of the doors that are open.
    ///
    /// # Errors
    /// Everything that is wrong with them: each key with the rest of the sentence.
    pub fn read(ingest: &Ingest) -> Result<Self, Vec<(String, String)>> {
        let mut problems = Vec::new();
        let mut door = |name: &str, listen: Option<&ListenAddr>, tls: &DoorTls| {
            tls.files().read_for(listen?).unwrap_or_else(|error| {
                let key = |(setting, why)| (format!("ingest.{name}.{setting}"), why);
                problems.extend(error.problems.into_iter().map(key));
                None
            })
        };
        let grpc = door("grpc", ingest.grpc.listen.as_ref(), &ingest.grpc.tls);
        let http = door("http", ingest.http.listen.as_ref(), &ingest.http.tls);
        if problems.is_empty() { Ok(Self { grpc, http }) } else { Err(problems) }
    }

    /// Each door's, by its name.
    pub fn into_doors(self) -> impl Iterator<Item = (&'static str, ServerTls)> {
        let doors = [("grpc", self.grpc), ("http", self.http)];
        doors.into_iter().filter_map(|(name, tls)| Some((name, tls?)))
    }
}

/// Whether the door of this name is open and speaks TLS.
pub fn speaks_tls(ingest: &Ingest, door: &str) -> bool {
    match door {
        "grpc" => ingest.grpc.listen.is_some() && !ingest.grpc.tls.files().is_empty(),
        "http" => ingest.http.listen.is_some() && !ingest.http.tls.files().is_empty(),
        _ => false,
    }
}

/// Notes what is wrong with the files of the doors.
pub(super) fn judge(ingest: &Ingest, values: &Values, problems: &Problems<'_>) {
    for (key, why) in DoorsTls::read(ingest).err().into_iter().flatten() {
        let origin = at(values, &key).map(origin_of).unwrap_or_default();
        problems.note(format!("{key}{origin}: {why}"));
    }
}
