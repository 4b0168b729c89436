//! TLS at a door.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError, Error, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use thiserror::Error;

use super::{
    files::{CERT_FILE, KEY_FILE, Problem, alone, authorities, identity, named},
    provider::provider,
};
use crate::address::ListenAddr;

const CLIENT_CA_FILE: &str = "tls.client_ca_file";
/// Behind the last second that a certificate can name (RFC 5280, section 4.1.2.5), since the Unix epoch.
const END_OF_TIMES: Duration = Duration::from_secs(253_402_300_800);

/// The files of a door's TLS, in PEM. With none of them the door speaks plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The certificate that clients are shown, behind it those between it and its authority.
    pub cert_file: Option<PathBuf>,
    /// Its key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key_file: Option<PathBuf>,
    /// Certificates of the authorities of which one has to have signed a client's certificate; none: clients are asked
    /// for no certificate.
    pub client_ca_file: Option<PathBuf>,
}

impl ServerTlsFiles {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads them, and judges what is in them; `None` where there are none.
    ///
    /// # Errors
    /// Everything that is wrong with the files, or with the machine.
    pub fn read(&self) -> Result<Option<ServerTls>, ServerTlsError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.tls().map(Some).map_err(|problems| ServerTlsError { problems })
    }

    /// [`ServerTlsFiles::read`], for a door that listens there.
    ///
    /// # Errors
    /// The same, and files for a door that has no TLS because it is a Unix socket.
    pub fn read_for(&self, listen: &ListenAddr) -> Result<Option<ServerTls>, ServerTlsError> {
        if let ListenAddr::Tcp(_) = listen {
            return self.read();
        }
        let files = [
            (CERT_FILE, &self.cert_file),
            (KEY_FILE, &self.key_file),
            (CLIENT_CA_FILE, &self.client_ca_file),
        ];
        let rule = format!("must not be set: the door is {listen}, and TLS is spoken over TCP alone");
        let problem =
            |(setting, file): (_, &Option<PathBuf>)| Some((setting, named(file.as_deref()?, &rule)));
        match files.into_iter().filter_map(problem).collect::<Vec<_>>() {
            problems if problems.is_empty() => Ok(None),
            problems => Err(ServerTlsError { problems }),
        }
    }

    fn tls(&self) -> Result<ServerTls, Vec<Problem>> {
        let (certificate, key) = (self.cert_file.as_deref(), self.key_file.as_deref());
        let provider = provider().map_err(|why| {
            let (setting, file) = [(CERT_FILE, certificate), (KEY_FILE, key)]
                .into_iter()
                .find_map(|(setting, file)| Some((setting, file?)))
                .unwrap_or((CLIENT_CA_FILE, self.client_ca_file.as_deref().unwrap_or("".as_ref())));
            vec![(setting, named(file, &why))]
        })?;
        let mut problems = Vec::new();
        let identity = identity(&provider, certificate, key).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        let mut clients = None;
        if let Some(file) = &self.client_ca_file {
            if certificate.or(key).is_none() {
                problems.push((CLIENT_CA_FILE, alone(file, "tls.cert_file and tls.key_file")));
            }
            match authorities(CLIENT_CA_FILE, file) {
                Ok(roots) => clients = Some(roots),
                Err(problem) => problems.push(problem),
            }
        }
        match identity {
            Some(identity) if problems.is_empty() => {
                ServerTls::new(provider, identity, clients).map_err(|error| vec![(CERT_FILE, error)])
            }
            _ => Err(problems),
        }
    }
}

/// The files of a door's TLS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.shown())]
pub struct ServerTlsError {
    /// What is wrong: the setting, such as `tls.cert_file`, and its value with what is wrong with it. At least one.
    pub problems: Vec<(&'static str, String)>,
}

impl ServerTlsError {
    fn shown(&self) -> String {
        let shown: Vec<_> = self.problems.iter().map(|(setting, why)| format!("{setting}: {why}")).collect();
        shown.join("; ")
    }
}

/// How a door speaks TLS 1.2 and 1.3 (RFC 5246, RFC 8446), as its files were when they were read.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    asks_clients: bool,
    expires: Option<SystemTime>,
}

impl ServerTls {
    fn new(
        provider: Arc<CryptoProvider>,
        identity: Arc<CertifiedKey>,
        clients: Option<RootCertStore>,
    ) -> Result<Self, String> {
        let expires = not_after(&provider, &identity);
        let asks_clients = clients.is_some();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        // Who resumes a session shows no certificate again: one that has expired since would be let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), asks_clients, expires })
    }

    /// Whether clients have to show a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// The last moment at which the door's certificate is valid, as far as it can be told.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// For a door that speaks the protocols of these names (RFC 7301). A client that names none is let in, one that
    /// names others is not.
    pub(crate) fn speaking(&self, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ServerTls");
        out.field("asks_clients", &self.asks_clients).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// When a certificate ends, which the library tells of one that has ended: so it is asked at the end of times.
fn not_after(provider: &Arc<CryptoProvider>, identity: &CertifiedKey) -> Option<SystemTime> {
    let certificate = identity.cert.first()?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let name = ServerName::try_from("localhost").ok()?;
    let at = UnixTime::since_unix_epoch(END_OF_TIMES);
    match verifier.build().ok()?.verify_server_cert(certificate, &[], &name, &[], at) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Folder, *};

    fn read(folder: &Folder, files: [&str; 3]) -> Result<Option<ServerTls>, ServerTlsError> {
        let [cert_file, key_file, client_ca_file] =
            files.map(|name| Some(name).filter(|name| !name.is_empty()).map(|name| folder.path(name)));
        ServerTlsFiles { cert_file, key_file, client_ca_file }.read()
    }

    /// Everything that is wrong with these files of a folder.
    fn problems(folder: &Folder, files: [&str; 3]) -> Vec<String> {
        let problems = read(folder, files).err().map(|error| error.problems).unwrap_or_default();
        let shown = |(setting, why): &Problem| format!("{setting}: {}", why.replace(&folder.shown(), ""));
        problems.iter().map(shown).collect()
    }

    #[test]
    fn files_that_fit_are_taken_and_none_are_no_tls() {
        let folder = Folder::new("door-fit");
        assert!(read(&folder, ["", "", ""]).unwrap().is_none());
        let tls = read(&folder, ["server.pem", "server.key", ""]).unwrap().unwrap();
        assert!(!tls.asks_clients());
        let tls = read(&folder, ["server.pem", "server.key", "ca.pem"]).unwrap().unwrap();
        assert!(tls.asks_clients());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name() {
        let folder = Folder::new("door-wrong");
        folder.write("text.pem", b"hello");
        let pem = "must hold a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----";
        let no_key = "must hold a private key in PEM that is not encrypted (PKCS #8, PKCS #1 or SEC 1)";
        for (files, expected) in [
            (
                ["server.pem", "", ""],
                "tls.cert_file: \"/server.pem\" must not be set alone: set tls.key_file too",
            ),
            (
                ["", "server.key", ""],
                "tls.key_file: \"/server.key\" must not be set alone: set tls.cert_file too",
            ),
            (
                ["", "", "ca.pem"],
                "tls.client_ca_file: \"/ca.pem\" must not be set alone: set tls.cert_file and tls.key_file too",
            ),
            (
                ["no.pem", "server.key", ""],
                "tls.cert_file: \"/no.pem\" cannot be read: No such file or directory (os error 2)",
            ),
            (["text.pem", "server.key", ""], &format!("tls.cert_file: \"/text.pem\" {pem}")),
            (["server.pem", "text.pem", ""], &format!("tls.key_file: \"/text.pem\" {no_key}")),
            (
                ["server.pem", "client.key", ""],
                "tls.key_file: \"/client.key\" must hold the key of the certificate in \"/server.pem\", not another",
            ),
            (
                ["server.pem", "server.key", "server.key"],
                &format!("tls.client_ca_file: \"/server.key\" {pem}"),
            ),
        ] {
            assert_eq!(problems(&folder, files), [expected.to_owned()]);
        }
        let all = problems(&folder, ["no.pem", "no.key", "no-ca.pem"]);
        assert_eq!(all.len(), 3, "all at once: {all:?}");
        let error = read(&folder, ["no.pem", "no.key", ""]).unwrap_err().to_string();
        assert!(error.contains("no.pem\" cannot be read") && error.contains("; tls.key_file: "), "{error}");
    }

    #[test]
    fn a_unix_socket_has_no_tls() {
        let folder = Folder::new("door-unix");
        let listen = "unix:/run/nyx.sock".parse().unwrap();
        assert!(ServerTlsFiles::default().read_for(&listen).unwrap().is_none());
        let error = folder.door("server.pem", None).read_for(&listen).unwrap_err().to_string();
        let rule = "must not be set: the door is unix:/run/nyx.sock, and TLS is spoken over TCP alone";
        assert_eq!(
            error.replace(&folder.shown(), ""),
            format!("tls.cert_file: \"/server.pem\" {rule}; tls.key_file: \"/server.key\" {rule}")
        );
        assert!(folder.door("server.pem", None).read_for(&"[::1]:1".parse().unwrap()).unwrap().is_some());
    }

    #[test]
    fn the_end_of_a_certificate_is_known_whether_or_not_it_has_come() {
        let folder = Folder::new("door-expires");
        for (file, seconds) in [("server.pem", 67_090_118_400), ("expired.pem", 978_307_200)] {
            let tls = read(&folder, [file, "server.key", ""]).unwrap().unwrap();
            assert_eq!(tls.expires(), Some(UNIX_EPOCH + Duration::from_secs(seconds)), "{file}");
        }
    }
}
