//! The build script finds the commit that is checked out, without git.

#![allow(clippy::unwrap_used, dead_code, reason = "the helpers of tests are tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

#[path = "../build.rs"]
mod build;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SHORT: &str = "0123456789ab";

/// A folder of these files.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commit").join(name);
    let _absent = fs::remove_dir_all(&root);
    for (file, text) in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn commit(name: &str, files: &[(&str, &str)]) -> Option<String> {
    build::commit(&folder(name, files)).0
}

#[test]
fn a_branch_is_followed_to_its_commit() {
    let head = (".git/HEAD", "ref: refs/heads/main\n");
    let loose = (".git/refs/heads/main", &*format!("{COMMIT}\n"));
    assert_eq!(commit("loose", &[head, loose]).as_deref(), Some(SHORT));
    let packed =
        format!("# pack-refs with: peeled\n{} refs/heads/main2\n{COMMIT} refs/heads/main\n", "f".repeat(40));
    assert_eq!(commit("packed", &[head, (".git/packed-refs", &packed)]).as_deref(), Some(SHORT));
}

#[test]
fn a_detached_head_is_the_commit_itself() {
    assert_eq!(commit("detached", &[(".git/HEAD", COMMIT)]).as_deref(), Some(SHORT));
}

#[test]
fn a_worktree_has_the_commit_of_its_own_head() {
    let files = [
        ("tree/.git", "gitdir: ../main/.git/worktrees/tree\n"),
        ("main/.git/worktrees/tree/HEAD", "ref: refs/heads/side\n"),
        ("main/.git/worktrees/tree/commondir", "../..\n"),
        ("main/.git/refs/heads/side", COMMIT),
    ];
    let root = folder("worktree", &files);
    assert_eq!(build::commit(&root.join("tree")).0.as_deref(), Some(SHORT));
}

#[test]
fn outside_of_a_checkout_the_commit_is_unknown() {
    let root = folder("nothing", &[("file", "")]);
    assert_eq!(build::commit(&root), (None, vec![]));
    assert_eq!(commit("unborn", &[(".git/HEAD", "ref: refs/heads/main\n")]), None);
    assert_eq!(commit("garbage", &[(".git/HEAD", "garbage")]), None);
}

#[test]
fn this_program_says_the_commit_that_it_was_built_from() {
    let found = build::commit(Path::new(env!("CARGO_MANIFEST_DIR"))).0;
    let commit = found.unwrap_or_else(|| "unknown".to_owned());
    assert!(
        nyx_daemon::cli::VERSION.ends_with(&format!(" (commit {commit})")),
        "{}",
        nyx_daemon::cli::VERSION
    );
}
