//! The measuring rod.
fn main() {}
