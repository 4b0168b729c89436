//! TLS to a destination.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, sign::SingleCertAndKey};

use super::{
    TlsFiles,
    files::{Problem, authorities, identity},
    provider::provider,
};

const ENDPOINT: &str = "endpoint";
const CA_FILE: &str = "tls.ca_file";

/// How a client with these files speaks TLS, and behind it the protocol of this name (RFC 7301).
///
/// # Errors
/// Everything that is wrong with the files, or with the machine.
pub(crate) fn client(files: &TlsFiles, protocol: &[u8]) -> Result<Arc<ClientConfig>, Vec<Problem>> {
    let provider = provider().map_err(|why| vec![(ENDPOINT, why)])?;
    let mut problems = Vec::new();
    let roots = roots(files.ca_file.as_deref()).unwrap_or_else(|problem| {
        problems.push(problem);
        RootCertStore::empty()
    });
    let identity =
        identity(&provider, files.cert_file.as_deref(), files.key_file.as_deref()).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
    if !problems.is_empty() {
        return Err(problems);
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![(ENDPOINT, error.to_string())])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// The authorities of a file, or the system's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn roots(file: Option<&Path>) -> Result<RootCertStore, Problem> {
    if let Some(file) = file {
        return authorities(CA_FILE, file);
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err((
            ENDPOINT,
            format!("asks for TLS, and this system has no certificates of authorities{why}: set tls.ca_file"),
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Folder, *};

    /// Everything that is wrong with these files of a folder.
    fn problems(folder: &Folder, ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> Vec<String> {
        let file = |name: Option<&str>| name.map(|name| folder.path(name));
        let files = TlsFiles { ca_file: file(ca), cert_file: file(cert), key_file: file(key) };
        let shown = |(setting, why): Problem| format!("{setting}: {}", why.replace(&folder.shown(), ""));
        client(&files, b"h2").err().unwrap_or_default().into_iter().map(shown).collect()
    }

    #[test]
    fn files_that_fit_are_taken() {
        let folder = Folder::new("tls-fit");
        assert_eq!(problems(&folder, Some("ca.pem"), Some("client.pem"), Some("client.key")), [""; 0]);
        assert_eq!(problems(&folder, Some("ca.pem"), None, None), [""; 0]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name() {
        let folder = Folder::new("tls-wrong");
        folder.write("text.pem", b"hello");
        folder.write("broken.pem", b"-----BEGIN CERTIFICATE-----\nMII!\n-----END CERTIFICATE-----\n");
        folder.write("no-x509.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        folder.write("large.pem", &vec![b' '; (1 << 20) + 1]);
        let p521 = "must hold a key of RSA, of ECDSA on P-256 or P-384 (not P-521), or of Ed25519";
        let pem = "must hold a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----";
        let no_key = "must hold a private key in PEM that is not encrypted (PKCS #8, PKCS #1 or SEC 1)";
        for (ca, cert, key, expected) in [
            (
                Some("no.pem"),
                None,
                None,
                "tls.ca_file: \"/no.pem\" cannot be read: No such file or directory (os error 2)",
            ),
            (Some("text.pem"), None, None, &format!("tls.ca_file: \"/text.pem\" {pem}")),
            (Some("client.key"), None, None, &format!("tls.ca_file: \"/client.key\" {pem}")),
            (Some("large.pem"), None, None, "tls.ca_file: \"/large.pem\" must have at most 1048576 bytes"),
            (
                None,
                Some("client.pem"),
                None,
                "tls.cert_file: \"/client.pem\" must not be set alone: set tls.key_file too",
            ),
            (
                None,
                None,
                Some("client.key"),
                "tls.key_file: \"/client.key\" must not be set alone: set tls.cert_file too",
            ),
            (
                None,
                Some("client.pem"),
                Some("client.pem"),
                &format!("tls.key_file: \"/client.pem\" {no_key}"),
            ),
            (None, Some("client.pem"), Some("p521.key"), &format!("tls.key_file: \"/p521.key\" {p521}")),
            (
                None,
                Some("client.pem"),
                Some("server.key"),
                "tls.key_file: \"/server.key\" must hold the key of the certificate in \"/client.pem\", not another",
            ),
        ] {
            let ca = ca.or(Some("ca.pem"));
            assert_eq!(problems(&folder, ca, cert, key), [expected.to_owned()]);
        }
        for name in ["broken.pem", "no-x509.pem"] {
            let [problem] = &problems(&folder, Some(name), None, None)[..] else { panic!("one problem") };
            assert!(problem.starts_with(&format!("tls.ca_file: \"/{name}\" must ")), "{problem}");
        }
        let both = problems(&folder, Some("no.pem"), Some("no.pem"), Some("no.key"));
        assert_eq!(both.len(), 3, "all at once: {both:?}");
    }
}
