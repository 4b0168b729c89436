//! nyx-daemon library.
