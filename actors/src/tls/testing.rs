//! An authority of tests and what it signs, and clients that trust it. The keys are nobody's: they stand here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "the helpers of tests are tests"
)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ServerTlsFiles,
    files::{authorities, identity},
};

const CA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKjp1OVcWnVkGrKuF\n\
XTVrYhQNYE2vhCJFdmFu5BERqzKhRANCAARD8lGmGjEJTTbltrXIo8TqnNqqlTJR\n\
GTKsv5ohf6B3GJP5RlS6pJ6pkMDpFHMxeA4SKpC9UePbzuLuGGIy/VQ4\n\
-----END PRIVATE KEY-----\n";
const SERVER_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIdewbjGGRydRDHq+\n\
QQaChxvO4JfQwiJg95RE+Le4jKuhRANCAAQr+rbsXJPP7SPU7gwNbe9hQZ6t8gVi\n\
fUY8G0IboM2gUYirJedFcbvS5P46OCswNrqH4OrUfCwJlKWytJqYvd6L\n\
-----END PRIVATE KEY-----\n";
const CLIENT_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgpkjs/TRkYaQ0GJsO\n\
f0Am6BdFnA/dNoH3Uod7n3ookuihRANCAAT69dKGS2J3o7AsKH7FxIjzejIzwVuA\n\
i8G1qqPOz+EmNZgb214edVMOahQEGkArU/IKl2vU4SKfNtb1xzFRk/NG\n\
-----END PRIVATE KEY-----\n";
const P521_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBZQujPn3FcWPiAoaF\n\
MI/ZxWPmKic59aXMlChtXiOI2mkLe++stGJDv8Hdf0BI/j+BBI90wq2jWhcEStok\n\
V/sfM8GhgYkDgYYABABGvxUh+4e9UrWeAfGnGQ12rNOkZm4e6np01RI6UBG7iIAQ\n\
q46JSbwei3VstNYjG16aH7i5Kp5sgjQHV1Xd7kNiLQDFsQdM9DfbaGX/H//KZxGf\n\
PAJlKsCk1fq+KeemHm/i3z95h0PUsqNhq66XckA+0UC71XnSBu9BGp8DGVGaiBA7\n\
pQ==\n\
-----END PRIVATE KEY-----\n";

/// A key that signs with graviola.
struct Key {
    signing: Arc<dyn rustls::sign::SigningKey>,
    point: Vec<u8>,
}

impl Key {
    fn new(pem: &str) -> Self {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let signing = rustls_graviola::default_provider().key_provider.load_private_key(der).unwrap();
        let spki = signing.public_key().unwrap();
        // The point of a key on P-256 has 65 bytes, at the end.
        let point = spki[spki.len() - 65..].to_vec();
        Self { signing, point }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signing.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        Ok(signer.sign(message).unwrap())
    }
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// A folder with `ca.pem`; `server.pem` and `renewed.pem` for 127.0.0.1, `expired.pem` and `elsewhere.pem` (another name) with
/// `server.key`; `client.pem` with `client.key`; `other-ca.pem`, an authority that signed none of them; and `p521.key`.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("nyx-{name}-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let (ca_key, server_key, client_key) = (Key::new(CA_KEY), Key::new(SERVER_KEY), Key::new(CLIENT_KEY));
        let mut ca = params("authority", 1);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        folder.write("ca.pem", ca.self_signed(&ca_key).unwrap().pem().as_bytes());
        let mut other = params("other authority", 2);
        other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        folder.write("other-ca.pem", other.self_signed(&client_key).unwrap().pem().as_bytes());
        let issuer = Issuer::new(ca, ca_key);
        let mut expired = params("127.0.0.1", 4);
        expired.not_after = date_time_ymd(2001, 1, 1);
        for (file, params, key) in [
            ("server.pem", params("127.0.0.1", 3), &server_key),
            ("renewed.pem", params("127.0.0.1", 7), &server_key),
            ("expired.pem", expired, &server_key),
            ("elsewhere.pem", params("elsewhere.example", 5), &server_key),
            ("client.pem", params("client", 6), &client_key),
        ] {
            folder.write(file, params.signed_by(key, &issuer).unwrap().pem().as_bytes());
        }
        for (file, pem) in [("server.key", SERVER_KEY), ("client.key", CLIENT_KEY), ("p521.key", P521_KEY)] {
            folder.write(file, pem.as_bytes());
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn shown(&self) -> String {
        self.0.display().to_string()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The files of a door with this certificate, which asks for one of this authority's if it is named.
    pub fn door(&self, certificate: &str, clients: Option<&str>) -> ServerTlsFiles {
        ServerTlsFiles {
            cert_file: Some(self.path(certificate)),
            key_file: Some(self.path("server.key")),
            client_ca_file: clients.map(|authority| self.path(authority)),
        }
    }

    /// A server with these files.
    pub fn server(&self, certificate: &str, clients: Option<&str>) -> Arc<ServerConfig> {
        let tls = self.door(certificate, clients).read().unwrap().unwrap();
        tls.speaking(&[b"h2", b"http/1.1"])
    }
}

/// A connection with TLS.
pub type Secured = TlsStream<TcpStream>;

/// The certificate that the other end shows.
pub fn shown(stream: &Secured) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// A client of a server on 127.0.0.1.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub folder: &'a Folder,
    /// Whom it trusts.
    pub ca: &'a str,
    /// Its certificate and key.
    pub own: Option<(&'a str, &'a str)>,
    pub version: &'static SupportedProtocolVersion,
    /// What it offers to speak.
    pub protocols: &'a [&'a str],
}

impl<'a> Client<'a> {
    /// One that trusts the authority, has no certificate, and speaks TLS 1.3.
    pub fn new(folder: &'a Folder) -> Self {
        Self { folder, ca: "ca.pem", own: None, version: &TLS13, protocols: &[] }
    }

    pub fn trusting(self, ca: &'a str) -> Self {
        Self { ca, ..self }
    }

    pub fn with(self, certificate: &'a str, key: &'a str) -> Self {
        Self { own: Some((certificate, key)), ..self }
    }

    pub fn over_tls12(self) -> Self {
        Self { version: &TLS12, ..self }
    }

    pub fn offering(self, protocols: &'a [&'a str]) -> Self {
        Self { protocols, ..self }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls_graviola::default_provider());
        let own = self.own.map(|(certificate, key)| (self.folder.path(certificate), self.folder.path(key)));
        let (certificate, key) = own.as_ref().map(|(certificate, key)| (&**certificate, &**key)).unzip();
        let identity = identity(&provider, certificate, key).unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(authorities("", &self.folder.path(self.ca)).unwrap());
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Connects and shakes hands. Under TLS 1.3 the server looks at the client's certificate after that.
    ///
    /// # Errors
    /// Those of TLS.
    pub async fn connect(&self, address: &str) -> io::Result<Secured> {
        self.greet(TcpStream::connect(address).await?).await
    }

    /// What this client is told, which the server does not let in; at the latest when it reads.
    pub async fn refused(&self, address: &str) -> String {
        match self.connect(address).await {
            Err(error) => error.to_string(),
            Ok(mut stream) => stream.read_to_end(&mut Vec::new()).await.unwrap_err().to_string(),
        }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Those of TLS.
    pub async fn greet<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(self.config()).connect(name, stream).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let folder: &Path = &self.0;
        let _gone = fs::remove_dir_all(folder);
    }
}
