//! Where the cryptography comes from.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The cryptography of everything that speaks TLS.
///
/// # Errors
/// What the processor lacks for it. It is looked at only where TLS is asked for.
pub(super) fn provider() -> Result<Arc<CryptoProvider>, String> {
    match unusable(&missing()) {
        Some(problem) => Err(problem),
        None => Ok(Arc::new(rustls_graviola::default_provider())),
    }
}

fn unusable(missing: &[&str]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(", ");
    Some(format!("asks for TLS, for which this processor lacks {missing}: use another machine, or no TLS"))
}

/// What graviola needs and would end the process without.
#[cfg(target_arch = "x86_64")]
fn missing() -> Vec<&'static str> {
    let needed = [
        ("AES", std::arch::is_x86_feature_detected!("aes")),
        ("PCLMULQDQ", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("BMI1", std::arch::is_x86_feature_detected!("bmi1")),
        ("BMI2", std::arch::is_x86_feature_detected!("bmi2")),
        ("ADX", std::arch::is_x86_feature_detected!("adx")),
        ("AVX", std::arch::is_x86_feature_detected!("avx")),
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
    ];
    needed.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

/// What graviola needs and would end the process without.
#[cfg(target_arch = "aarch64")]
fn missing() -> Vec<&'static str> {
    let needed = [
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
        ("AES", std::arch::is_aarch64_feature_detected!("aes")),
        ("PMULL", std::arch::is_aarch64_feature_detected!("pmull")),
        ("SHA2", std::arch::is_aarch64_feature_detected!("sha2")),
    ];
    needed.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_cannot_is_told_by_what_it_lacks() {
        assert_eq!(unusable(&[]), None);
        assert_eq!(
            unusable(&["ADX", "BMI2"]).unwrap(),
            "asks for TLS, for which this processor lacks ADX, BMI2: use another machine, or no TLS"
        );
    }
}
