//! The process' limit of open files, of which each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are no connections of a door: listeners, the threads' event queues, the admin pages' and the
/// exporters' sockets, with a margin.
const OTHER_FILES: u64 = 256;

/// Raises the soft limit of open files to the hard one, and warns where `max_connections` do not fit.
///
/// Soft limits are low for the sake of programs that use `select(2)`, which knows 1,024 files; this one does not.
pub(crate) fn raise_open_files(max_connections: usize) {
    let found = getrlimit(Resource::Nofile);
    let limit = match raised(found) {
        None => found,
        Some(limit) => match setrlimit(Resource::Nofile, limit) {
            Ok(()) => {
                tracing::info!(from = words(found.current), to = words(limit.current), "file limit raised");
                limit
            }
            Err(error) => {
                tracing::warn!(%error, limit = words(found.current), "file limit cannot be raised");
                found
            }
        },
    };
    if let Some(warning) = misfit(limit.current, max_connections) {
        tracing::warn!("{warning}");
    }
}

/// The limit to be set, if the one found leaves room above it.
fn raised(found: Rlimit) -> Option<Rlimit> {
    (found.current != found.maximum).then_some(Rlimit { current: found.maximum, maximum: found.maximum })
}

/// What is to be said of so many connections under this limit.
fn misfit(limit: Option<u64>, max_connections: usize) -> Option<String> {
    let limit = limit?;
    let room = limit.saturating_sub(OTHER_FILES);
    (u64::try_from(max_connections).unwrap_or(u64::MAX) > room).then(|| {
        format!(
            "ingest.max_connections is {max_connections}, but the limit of {limit} open files leaves room for \
             {room}: raise it (LimitNOFILE= of the unit, ulimit -n) or allow fewer connections"
        )
    })
}

fn words(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn a_soft_limit_below_the_hard_one_is_raised_to_it() {
        let hard = Some(524_288);
        assert_eq!(raised(limit(Some(1_024), hard)), Some(limit(hard, hard)));
        assert_eq!(raised(limit(hard, hard)), None);
        assert_eq!(raised(limit(Some(1_024), None)), Some(limit(None, None)));
        assert_eq!(raised(limit(None, None)), None);
    }

    #[test]
    fn connections_that_do_not_fit_are_named_with_the_limit() {
        let warning = "ingest.max_connections is 10000, but the limit of 4096 open files leaves room for 3840: \
                       raise it (LimitNOFILE= of the unit, ulimit -n) or allow fewer connections";
        assert_eq!(misfit(Some(4_096), 10_000).as_deref(), Some(warning));
        assert!(misfit(Some(4_096), 3_841).is_some());
        assert_eq!(misfit(Some(4_096), 3_840), None);
        assert!(misfit(Some(100), 1).is_some());
        assert_eq!(misfit(None, 1_000_000), None);
    }
}
