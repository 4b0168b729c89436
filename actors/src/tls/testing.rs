//! An authority of tests and what it signs. The keys are nobody's: they stand here.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, SignatureScheme,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::SingleCertAndKey,
};

use super::files::{certificates, certified};

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

/// A folder with `ca.pem`; `server.pem` for 127.0.0.1, `expired.pem` and `elsewhere.pem` (another name) with
/// `server.key`; `client.pem` with `client.key`; `other-ca.pem`, an authority that signed none of them; and `p521.key`.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn shown(&self) -> String {
        self.0.display().to_string()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// A server with this certificate, which asks for one of this authority's if it is named.
    pub(crate) fn server(&self, certificate: &str, clients: Option<&str>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls_graviola::default_provider());
        let Ok(identity) = certified(&provider, &self.path(certificate), &self.path("server.key")) else {
            panic!("the files fit")
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificates(&self.path(authority)).unwrap().remove(0)).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let folder: &Path = &self.0;
        let _gone = fs::remove_dir_all(folder);
    }
}
