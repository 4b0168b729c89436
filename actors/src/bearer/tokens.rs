//! A list of tokens, and whether a stranger has one of them (level 0).

use std::{fmt, ops::RangeInclusive, sync::Arc};

use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

/// Tokens of a list; two hold while one follows the other.
pub const TOKENS_MAX: usize = 16;
/// Bytes of a token.
pub const TOKEN_BYTES: RangeInclusive<usize> = 16..=4096;

/// Tokens of which one is to be brought. Nothing shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Arc<[Box<[u8]>]>);

/// A list that cannot be used. The texts name lines, and repeat nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokensError {
    /// There is none.
    #[error("it has no token: {RULE}")]
    None,
    /// Too short to be a secret, or too long for a header.
    #[error("line {line} has {bytes} bytes: {RULE}")]
    Length {
        /// Counted from 1.
        line: usize,
        /// Without the white space around it.
        bytes: usize,
    },
    /// No `b64token` (RFC 6750, section 2.1).
    #[error(
        "line {line}, byte {byte} of the token: may be an ASCII letter, a digit or one of -._~+/, and at the end ="
    )]
    Character {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, without the white space before the token.
        byte: usize,
    },
    /// More than [`TOKENS_MAX`].
    #[error("line {line} has one token too many: at most {TOKENS_MAX} hold at a time")]
    TooMany {
        /// Counted from 1.
        line: usize,
    },
}

/// What a token has to be, and how to come by one.
const RULE: &str = "a token has 16 to 4096 bytes, such as `openssl rand -base64 32` makes";

impl Tokens {
    /// Reads a list: a token a line, with white space around it or not. Empty lines and those that begin with `#` do not
    /// count.
    ///
    /// # Errors
    /// The first line that is wrong, or that there is no token.
    pub fn parse(list: &[u8]) -> Result<Self, TokensError> {
        let mut tokens: Vec<Box<[u8]>> = Vec::new();
        for (line, text) in (1..).zip(list.split(|byte| *byte == b'\n')) {
            let token = text.trim_ascii();
            if token.is_empty() || token.starts_with(b"#") {
                continue;
            }
            if !TOKEN_BYTES.contains(&token.len()) {
                return Err(TokensError::Length { line, bytes: token.len() });
            }
            if let Some(byte) = stranger(token) {
                return Err(TokensError::Character { line, byte: byte + 1 });
            }
            if tokens.len() == TOKENS_MAX {
                return Err(TokensError::TooMany { line });
            }
            tokens.push(token.into());
        }
        if tokens.is_empty() { Err(TokensError::None) } else { Ok(Self(tokens.into())) }
    }

    /// Whether this is one of them. How long it takes tells nothing of what is in them: each is compared to its end,
    /// whether one before was right or not. It may tell their lengths, which are no secret.
    pub fn accept(&self, token: &[u8]) -> bool {
        let right = self.0.iter().fold(Choice::from(0), |right, own| right | own.ct_eq(token));
        right.into()
    }
}

/// Where the first byte is that a token may not have there.
fn stranger(token: &[u8]) -> Option<usize> {
    let end = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    match end {
        0 => Some(0),
        _ => token.iter().take(end).position(|byte| !plain(byte)),
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Tokens, String> {
        Tokens::parse(list.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_has_a_token_a_line_and_room_for_people() {
        let list = "# since May\n\n  first-token.of_20~ \t\r\n#old\nSECOND+token/of+22==";
        let tokens = parse(list).unwrap();
        assert_eq!(tokens.0.len(), 2);
        for token in ["first-token.of_20~", "SECOND+token/of+22=="] {
            assert!(tokens.accept(token.as_bytes()), "{token}");
        }
        for other in
            ["", "#old", "# since May", "first-token.of_20", "SECOND+token/of+22=", "first-token.of_20~ "]
        {
            assert!(!tokens.accept(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn each_of_many_tokens_is_accepted_wherever_it_stands() {
        let list: Vec<String> = (0..TOKENS_MAX).map(|number| format!("token-number-{number:03}")).collect();
        let tokens = parse(&list.join("\n")).unwrap();
        assert!(list.iter().all(|token| tokens.accept(token.as_bytes())));
        assert!(!tokens.accept(b"token-number-016"));
    }

    #[test]
    fn tokens_of_the_least_and_the_greatest_length_hold() {
        for bytes in [16, 4096] {
            let token = "x".repeat(bytes);
            assert!(parse(&token).unwrap().accept(token.as_bytes()));
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_its_line_and_shows_no_token() {
        let rule = "a token has 16 to 4096 bytes, such as `openssl rand -base64 32` makes";
        let characters = "may be an ASCII letter, a digit or one of -._~+/, and at the end =";
        let seventeen = "0123456789abcdef\n".repeat(17);
        for (list, expected) in [
            ("", format!("it has no token: {rule}")),
            ("# none\n \n", format!("it has no token: {rule}")),
            ("0123456789abcdef\n0123456789abcde", format!("line 2 has 15 bytes: {rule}")),
            (&"x".repeat(4097), format!("line 1 has 4097 bytes: {rule}")),
            ("\n Bearer 0123456789abcdef", format!("line 2, byte 7 of the token: {characters}")),
            ("0123456789=abcdef", format!("line 1, byte 11 of the token: {characters}")),
            ("================", format!("line 1, byte 1 of the token: {characters}")),
            ("0123456789abcdé=", format!("line 1, byte 15 of the token: {characters}")),
            ("\u{feff}0123456789abcdef", format!("line 1, byte 1 of the token: {characters}")),
            (&seventeen, "line 17 has one token too many: at most 16 hold at a time".to_owned()),
        ] {
            assert_eq!(parse(list).unwrap_err(), expected, "{list}");
        }
        assert_eq!(format!("{:?}", parse("0123456789abcdef").unwrap()), "1 tokens");
    }
}
