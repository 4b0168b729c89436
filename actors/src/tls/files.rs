//! Certificates and keys, from files in PEM (RFC 7468).

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// Bytes of a file; bundles of all public authorities have a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files of one side of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the other side's is to be signed by; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// This side's certificate, behind it those between it and its authority; none: it shows none.
    pub cert_file: Option<PathBuf>,
    /// The key of this side's certificate: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key_file: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The certificates of a file, at least one.
///
/// # Errors
/// What is wrong with the file, to be said behind its name.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = bytes(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err("must hold a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("must be PEM: {error}")),
    }
}

/// What is wrong: the setting, and its value with what is wrong with it.
pub(crate) type Problem = (&'static str, String);

pub(super) const CERT_FILE: &str = "tls.cert_file";
pub(super) const KEY_FILE: &str = "tls.key_file";

/// This side's certificate with its key, of which both are set or neither.
///
/// # Errors
/// Everything that is wrong with the two settings and their files.
pub(super) fn identity(
    provider: &CryptoProvider,
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> Result<Option<Arc<CertifiedKey>>, Vec<Problem>> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), None) => Err(vec![(CERT_FILE, alone(certificate, KEY_FILE))]),
        (None, Some(key)) => Err(vec![(KEY_FILE, alone(key, CERT_FILE))]),
        (Some(certificate), Some(key)) => match certified(provider, certificate, key) {
            Ok(certified) => Ok(Some(certified)),
            Err(Wrong { certificate: of_certificate, key: of_key }) => {
                let of_certificate = of_certificate.map(|why| (CERT_FILE, named(certificate, &why)));
                Err(of_certificate
                    .into_iter()
                    .chain(of_key.map(|why| (KEY_FILE, named(key, &why))))
                    .collect())
            }
        },
    }
}

/// The authorities of the file of this setting, at least one.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn authorities(setting: &'static str, file: &Path) -> Result<RootCertStore, Problem> {
    let wrong = |why: String| (setting, named(file, &why));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file).map_err(wrong)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("must hold certificates of authorities: {error}")))?;
    }
    Ok(roots)
}

pub(super) fn alone(file: &Path, other: &str) -> String {
    named(file, &format!("must not be set alone: set {other} too"))
}

pub(super) fn named(file: &Path, why: &str) -> String {
    format!("{file:?} {why}")
}

/// What is wrong with each of two files.
struct Wrong {
    certificate: Option<String>,
    key: Option<String>,
}

fn certified(
    provider: &CryptoProvider,
    certificate_file: &Path,
    key_file: &Path,
) -> Result<Arc<CertifiedKey>, Wrong> {
    let (chain, key) = match (certificates(certificate_file), key(key_file)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(Wrong { certificate: chain.err(), key: key.err() }),
    };
    let of_key = |why: &str| Wrong { certificate: None, key: Some(why.to_owned()) };
    let Ok(key) = provider.key_provider.load_private_key(key) else {
        return Err(of_key("must hold a key of RSA, of ECDSA on P-256 or P-384 (not P-521), or of Ed25519"));
    };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => {
            Err(of_key(&format!("must hold the key of the certificate in {certificate_file:?}, not another")))
        }
        Err(error) => {
            let certificate = Some(format!("must begin with a certificate of X.509: {error}"));
            Err(Wrong { certificate, key: None })
        }
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&bytes(path)?).map_err(|_| {
        "must hold a private key in PEM that is not encrypted (PKCS #8, PKCS #1 or SEC 1)".to_owned()
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("must have at most {FILE_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(bytes),
    }
}
