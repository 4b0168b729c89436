//! nyx-daemon.
fn main() {}
