//! Tells the program which commit it is built from, read from the checkout's files: neither git nor the network is needed.

#![allow(clippy::print_stdout, reason = "it is how a build script speaks to cargo")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Characters of a commit that are shown.
const SHOWN: usize = 12;

fn main() {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let (commit, read) = commit(&root);
    println!("cargo::rustc-env=NYX_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=build.rs");
    for path in read {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// The commit that is checked out at `root`, and the files that say so. `None` outside of a checkout.
pub(crate) fn commit(root: &Path) -> (Option<String>, Vec<PathBuf>) {
    let Some(git) = git_folder(root) else { return (None, Vec::new()) };
    let head_file = git.join("HEAD");
    let head = fs::read_to_string(&head_file).unwrap_or_default();
    let mut read = vec![head_file];
    let Some(name) = head.trim().strip_prefix("ref: ") else { return (shortened(&head), read) };
    // The references of a worktree are those of the repository that it belongs to.
    let common = fs::read_to_string(git.join("commondir")).map_or(git.clone(), |path| git.join(path.trim()));
    for file in [git.join(name), common.join(name), common.join("packed-refs")] {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        read.push(file);
        let found = match text.contains(' ') {
            true => {
                text.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ')).and_then(shortened)
            }
            false => shortened(&text),
        };
        if found.is_some() {
            return (found, read);
        }
    }
    (None, read)
}

/// The folder of git's files; in a worktree a file says where it is.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    Some(root.join(text.trim().strip_prefix("gitdir: ")?))
}

fn shortened(text: &str) -> Option<String> {
    let text = text.trim();
    let is_commit = text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit());
    is_commit.then(|| text.chars().take(SHOWN).collect())
}
