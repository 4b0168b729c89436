//! A file of tokens.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Tokens, TokensError};

/// Bytes of a file: the longest list twice, so that there is room to say what each token is for.
const FILE_BYTES_MAX: u64 = 128 << 10;
/// The right of everybody to read a file.
const OTHERS_READ: u32 = 0o004;

/// Tokens, and the file that they are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub tokens: Tokens,
    /// The mode with which every user of the machine may read it, if they may.
    pub open_mode: Option<u32>,
}

/// A file that cannot be used. The texts go on behind its name.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It is not there, or not ours to read.
    #[error("must be a file with a token a line that the daemon may read: {0}")]
    Unreadable(#[from] io::Error),
    /// A folder, a pipe, a device: nothing that can be read again and again.
    #[error("must be a file with a token a line: it is no regular file")]
    NoFile,
    /// Larger than any list.
    #[error("must be a file with a token a line: it has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Its lines are wrong.
    #[error("must be a file with a token a line: {0}")]
    Tokens(#[from] TokensError),
}

impl TokenFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TokenFileError`]
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let about = fs::metadata(path)?;
        if !about.is_file() {
            return Err(TokenFileError::NoFile);
        }
        let mut list = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut list)?;
        if list.len() as u64 > FILE_BYTES_MAX {
            return Err(TokenFileError::TooLarge);
        }
        let mode = about.permissions().mode() & 0o7777;
        let open_mode = (mode & OTHERS_READ != 0).then_some(mode);
        Ok(Self { path: path.to_owned(), tokens: Tokens::parse(&list)?, open_mode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nyx-tokens-{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_file_is_read_and_said_to_be_open_where_everybody_may_read_it() {
        for (mode, open_mode) in [(0o600, None), (0o640, None), (0o644, Some(0o644)), (0o604, Some(0o604))] {
            let path = file("read", b"0123456789abcdef\n", mode);
            let read = TokenFile::read(&path).unwrap();
            assert!(read.tokens.accept(b"0123456789abcdef"));
            assert_eq!((read.open_mode, &read.path), (open_mode, &path), "{mode:o}");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_of_tokens_is_refused_with_what_it_is() {
        let failure = |path: &Path| TokenFile::read(path).unwrap_err().to_string();
        assert_eq!(
            failure(Path::new("/nowhere/tokens")),
            "must be a file with a token a line that the daemon may read: No such file or directory (os error 2)"
        );
        for device in ["/", "/dev/null"] {
            let text = "must be a file with a token a line: it is no regular file";
            assert_eq!(failure(Path::new(device)), text, "{device}");
        }
        let large = file("large", &vec![b'\n'; (128 << 10) + 1], 0o600);
        assert_eq!(failure(&large), "must be a file with a token a line: it has more than 131072 bytes");
        fs::remove_file(large).unwrap();
        let short = file("short", b"hush", 0o600);
        assert_eq!(
            failure(&short),
            "must be a file with a token a line: line 1 has 4 bytes: a token has 16 to 4096 bytes, such as \
             `openssl rand -base64 32` makes"
        );
        fs::remove_file(short).unwrap();
    }
}
