//! What went wrong with TLS, in words that an operator can act on.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// The words, where TLS is at fault somewhere among the causes of this error.
pub(crate) fn explained(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(words(tls));
        }
        // An io::Error's own source is that of the error within, not that error.
        let within = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(words) = within.and_then(|within| explained(within)) {
            return Some(words);
        }
        cause = error.source();
    }
    None
}

fn words(error: &TlsError) -> String {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    match error {
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "TLS: its certificate has expired".to_owned()
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "TLS: its certificate is not valid yet: look at the clocks".to_owned()
            }
            Bad::UnknownIssuer => {
                "TLS: its certificate is signed by an authority that is not trusted here (tls.ca_file, or the system's)"
                    .to_owned()
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                format!("TLS: its certificate is for another name: {bad}")
            }
            Bad::Revoked => "TLS: its certificate was revoked".to_owned(),
            other => format!("TLS: its certificate is not accepted: {other}"),
        },
        TlsError::AlertReceived(
            alert @ (Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied),
        ) => format!("TLS: it does not accept our certificate (tls.cert_file): {alert:?}"),
        TlsError::AlertReceived(Alert::NoApplicationProtocol) => {
            "TLS: it does not speak this protocol (export.NAME.protocol)".to_owned()
        }
        TlsError::AlertReceived(alert) => format!("TLS: it ended the handshake: {alert:?}"),
        TlsError::InvalidMessage(_) => format!("TLS: it does not speak TLS: {error}"),
        other => format!("TLS: {other}"),
    }
}
