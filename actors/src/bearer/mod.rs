//! Bearer tokens (RFC 6750): who may use a door or a page (level 1).

mod file;
mod tokens;

use parking_lot::RwLock;

pub use self::{
    file::{TokenFile, TokenFileError},
    tokens::{TOKEN_BYTES, TOKENS_MAX, Tokens, TokensError},
};

/// What a refusal names in `WWW-Authenticate`; RFC 6750, section 3, asks for at least one parameter.
pub const CHALLENGE: &str = "Bearer realm=\"nyx\"";

/// The scheme's name.
const SCHEME: &[u8] = b"Bearer";

/// Lets in whoever brings a token, or everybody where none is asked for. What is set holds from the next request on,
/// whatever the connection.
#[derive(Debug, Default)]
pub struct Gate(RwLock<Option<Tokens>>);

impl Gate {
    /// A gate that asks for one of these tokens, or for none.
    pub fn new(tokens: Option<Tokens>) -> Self {
        Self(RwLock::new(tokens))
    }

    /// From now on asks for one of these tokens, or for none.
    pub fn set(&self, tokens: Option<Tokens>) {
        *self.0.write() = tokens;
    }

    /// Whether a request with these values of `authorization` may pass. Where a token is asked for there is to be one
    /// value: of several it could not be told which one somebody else has judged before.
    pub fn admits<'v>(&self, authorization: impl IntoIterator<Item = &'v [u8]>) -> bool {
        let tokens = self.0.read();
        let Some(tokens) = &*tokens else { return true };
        let mut values = authorization.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => token(value).is_some_and(|token| tokens.accept(token)),
            (None, _) | (Some(_), Some(_)) => false,
        }
    }
}

/// The token of a value: behind the scheme, in any case (RFC 9110, section 11.1), and a space.
fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let token = rest.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn gate() -> Gate {
        Gate::new(Some(Tokens::parse(format!("{TOKEN}\nabcdefghijklmnop==\n").as_bytes()).unwrap()))
    }

    #[test]
    fn a_gate_without_tokens_lets_everybody_in() {
        let gate = Gate::default();
        assert!(gate.admits([]) && gate.admits([&b"Basic eA=="[..]]) && gate.admits([&b"a"[..], b"b"]));
    }

    #[test]
    fn a_gate_lets_in_who_brings_one_of_its_tokens() {
        let gate = gate();
        for value in [
            "Bearer 0123456789abcdef",
            "bearer 0123456789abcdef",
            "BEARER   0123456789abcdef ",
            "Bearer abcdefghijklmnop==",
        ] {
            assert!(gate.admits([value.as_bytes()]), "{value}");
        }
    }

    #[test]
    fn a_gate_refuses_whatever_is_not_one_of_its_tokens() {
        let gate = gate();
        for value in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer 0123456789abcde",
            b"Bearer 0123456789abcdeF",
            b"Bearer 0123456789abcdef0",
            b"Bearer 0123456789abcdef, Bearer 0123456789abcdef",
            b"Bearer\t0123456789abcdef",
            b"Bearer0123456789abcdef",
            b"Basic 0123456789abcdef",
            b"0123456789abcdef",
            b"Bearer 0123456789abcde\xff",
            b"\xff\xff\xff\xff\xff\xff 0123456789abcdef",
        ] {
            assert!(!gate.admits([value]), "{value:?}");
        }
        assert!(!gate.admits([]));
        let right = format!("Bearer {TOKEN}");
        assert!(!gate.admits([right.as_bytes(), right.as_bytes()]), "of several none counts");
    }

    #[test]
    fn what_is_set_holds_from_then_on() {
        let gate = gate();
        let (old, new) = (&b"Bearer 0123456789abcdef"[..], &b"Bearer another-token-of-20"[..]);
        gate.set(Some(Tokens::parse(b"another-token-of-20").unwrap()));
        assert_eq!((gate.admits([old]), gate.admits([new])), (false, true));
        gate.set(None);
        assert!(gate.admits([old]) && gate.admits([]));
    }
}
