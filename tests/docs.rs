//! The documents say the same as the program. `NYX_GOLDEN=write` writes the generated one anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use nyx_daemon::config;
use nyx_telemetry::{
    accept::{DoorReason, TlsFailure},
    export::{DestinationState, verdict},
    log::{DropReason, Oddity, RejectReason},
    metrics::{self, Kind, Unit},
};

const DEFAULT_TOML: &str = include_str!("../config/default.toml");

/// Every document, by its path.
fn documents() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "benches/rod/README.md"].iter().map(|name| root.join(name)).collect();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backquotes, or in a block of anything but Rust: there, words are names that an operator uses.
fn code(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut block = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(language), None) => block = Some(language),
            (None, Some(language)) if language.starts_with("rust") => {}
            (None, Some(_)) => pieces.push(line),
            (None, None) => pieces.extend(line.split('`').skip(1).step_by(2)),
        }
    }
    pieces
}

/// The words of a piece of code: maximal runs of characters that names are made of.
fn words(piece: &str) -> impl Iterator<Item = &str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    piece
        .split(move |c| !in_name(c))
        .map(|word| word.trim_matches(['.', '-']))
        .filter(|word| !word.is_empty())
}

/// Every key of the configuration; of a destination's, whose name is up to the operator, the last parts.
fn keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut keys, mut of_destinations, mut table) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for line in DEFAULT_TOML.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            let key = format!("{table}.{key}");
            match key.strip_prefix("export.").and_then(|rest| rest.split_once('.')) {
                Some((_name, rest)) => of_destinations.insert(rest.to_owned()),
                None => keys.insert(key),
            };
        }
    }
    (keys, of_destinations)
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let targets =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            if !path.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_metric_that_a_document_names_exists() {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for family in metrics::ALL.iter().chain(metrics::PROFILES) {
        names.extend([family.name.to_owned(), family.open_name().to_owned()]);
        if family.kind == Kind::Histogram {
            names.extend(["_bucket", "_count", "_sum"].map(|suffix| format!("{}{suffix}", family.name)));
        }
    }
    for seed in [&metrics::SEED_COUNT, &metrics::SEED_DURATION, &metrics::SEED_ERRORS] {
        names.insert(format!("{}NAME", seed.prefix));
    }
    // The crates and targets of this workspace.
    names.extend(["nyx_telemetry", "nyx_daemon", "nyx_rod"].map(str::to_owned));
    let mut unknown = Vec::new();
    for (path, text) in documents() {
        for word in code(&text).into_iter().flat_map(words) {
            if word.starts_with("nyx_") && !word.contains('.') && !names.contains(word) {
                unknown.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_configuration_key_that_a_document_names_exists() {
    let (keys, of_destinations) = keys();
    let tables: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    // A table, too, is named by its path.
    let among = |keys: &BTreeSet<String>, word: &str| {
        keys.contains(word) || keys.iter().any(|key| key.starts_with(&format!("{word}.")))
    };
    let known = |word: &str| match word.strip_prefix("export.").map(|rest| rest.split_once('.')) {
        Some(Some((_name, rest))) => among(&of_destinations, rest),
        Some(None) => true,
        None => among(&keys, word),
    };
    let mut unknown = Vec::new();
    for (path, text) in documents() {
        for word in code(&text).into_iter().flat_map(words) {
            let (dotted, variable) = (word.split_once('.'), word.strip_prefix("NYX__"));
            let key = match (dotted, variable) {
                (_, Some(variable)) => variable.to_lowercase().replace("__", "."),
                (Some((table, _)), None) if tables.contains(table) || table == "export" => word.to_owned(),
                _ => continue,
            };
            // Examples of a misspelt key, of a pattern, of a child's name, of a span's, of a file.
            let example = [
                "shutdown.timeouts",
                "section.key",
                "log.size",
                "log.reader",
                "log.open",
                "metrics.offenders",
            ]
            .contains(&key.as_str());
            let file = [".rs", ".md", ".toml"].iter().any(|suffix| key.ends_with(suffix));
            if !example && !file && !known(&key) {
                unknown.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, at_least) in [("docs/guarantees.md", 40), ("docs/conformance.md", 40)] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let named: Vec<&str> = code(&text).into_iter().filter(|piece| piece.contains("::")).collect();
        assert!(named.len() > at_least, "the promises of {document} name their tests");
        let missing: Vec<_> = named.into_iter().filter(|path| !is_test(root, path)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{document}");
    }
}

/// Whether there is a function by this path: `tests/FILE::NAME`, or one of a module under `actors/src`, which may be
/// in its parent's file.
fn is_test(root: &Path, path: &str) -> bool {
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    let of_actors = |module: &str| {
        let path = root.join("actors/src").join(module.replace("::", "/"));
        [path.with_extension("rs"), path.join("mod.rs")]
    };
    let parent = module.strip_suffix("::tests").map(of_actors);
    let files = match module.starts_with("tests/") {
        true => vec![root.join(module)],
        false => of_actors(module).into_iter().chain(parent.into_iter().flatten()).collect(),
    };
    let function = format!("fn {name}(");
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| text.contains(&function))
}

#[test]
fn the_table_of_metrics_is_the_declared_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = metrics_page();
    if std::env::var_os("NYX_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &page).unwrap();
    }
    assert_eq!(page, fs::read_to_string(&path).unwrap(), "NYX_GOLDEN=write writes {} anew", path.display());
}

#[test]
fn the_reference_of_the_configuration_is_the_declared_one() {
    const BEGIN: &str = "<!-- written: keys -->\n";
    const END: &str = "<!-- end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let written = format!("{head}{BEGIN}{}{END}{tail}", configuration_keys());
    if std::env::var_os("NYX_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &written).unwrap();
    }
    assert!(written == fs::read_to_string(&path).unwrap(), "NYX_GOLDEN=write writes {} anew", path.display());
}

fn configuration_keys() -> String {
    let mut page = String::new();
    for table in config::reference().unwrap() {
        let name = if table.table == "export" { "export.NAME" } else { &table.table };
        writeln!(page, "\n### `[{name}]`\n").unwrap();
        for paragraph in table.meaning.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
            let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
            writeln!(page, "{}\n", lines.join("\n")).unwrap();
        }
        page.push_str("| Key | Variable | Default | SIGHUP | Range | Meaning |\n|---|---|---|---|---|---|\n");
        for row in table.rows {
            let (key, variable) = (&row.key, &row.variable);
            let sighup = if row.at_once { "at once" } else { "restart" };
            let default = row.default.map_or("not set".to_owned(), |default| format!("`{default}`"));
            writeln!(
                page,
                "| `{}` | `{variable}` | {default} | {sighup} | {} | {} |",
                key.name, key.allowed, key.meaning
            )
            .unwrap();
        }
    }
    page.push_str(
        "\n### OpenTelemetry's variables\n\nA later one beats those before it. An empty one counts as unset. One that cannot be \
         read is an error that names it, and so is one that asks for what nyx does not have.\n\n\
         | Variable | What it sets |\n|---|---|\n",
    );
    for (name, sets) in config::otel_variables() {
        writeln!(page, "| `{name}` | {sets} |").unwrap();
    }
    page.push('\n');
    page
}

#[test]
fn the_reference_names_all_that_is_a_nodes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(path).unwrap();
    for names in [listed(&config::NODE_TABLES), listed(&config::NODE_KEYS)] {
        assert!(page.contains(&names), "{names}");
    }
}

const METRICS_HEAD: &str = "\
# Metrics

Generated from the declarations in `actors/src/metrics.rs` by `NYX_GOLDEN=write cargo test --test docs`; without the variable that test
compares.

`GET /metrics` answers in the Prometheus text format 0.0.4, or in OpenMetrics 1.0 to a scraper that names
`application/openmetrics-text` in its `Accept` header and does not prefer the other. In OpenMetrics the family of a counter has no
`_total` (its samples do), families have a `# UNIT`, and counters and histograms have `_created` samples, but for those of destinations, whose ledgers may be
older than the process. A label without a value is left out.
All metrics are kept outside the actors that move them, so the page is whole while an actor is down.

The labels of the span metrics follow the spanmetrics connector of the OpenTelemetry collector: `span_kind` is `SPAN_KIND_SERVER` and so on,
`status_code` is `STATUS_CODE_UNSET`, `STATUS_CODE_OK` or `STATUS_CODE_ERROR`. Each attribute of `metrics.dimensions` is one label more.
A label's text is cut at 256 bytes, at the end of a character; `nyx_measure_cut_values_total` counts how often.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

const METRICS_PROFILES: &str = "
`NAME` is a span's name, in which everything but ASCII letters, digits and `_` is a `_`; one that would end like a sample of another type
(`_total`, `_sum` and so on) gets a `_` behind it. Names that become the same are summed, over all services. They are sums over the series of the span
metrics: the cap holds for them, and they go on over a restart. `metrics.seed_families` turns them off.

## Exemplars

In OpenMetrics each bucket of the duration histogram has the trace and span id of a span that it counted, its duration and its end: the first of the last
batch that had one whose trace a destination gets, by its sampling rate. After a restart there are none until spans come.

## Profiles

`metrics.profile` chooses by whose names the span metrics are exported. `nyx` are those above. Under the other two these take the place of
`nyx_span_count_total`, `nyx_span_errors_total` and `nyx_span_duration_seconds`; everything else stays. The errors are there the calls whose `status_code` is
`STATUS_CODE_ERROR`. `tests/golden` holds every name of each.

- `spanmetrics`: as the spanmetrics connector of the OpenTelemetry collector has them in Prometheus. Bounds are in milliseconds.
- `tempo`: as the metrics generator of Grafana Tempo has them, without `traces_spanmetrics_size_total`.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

const METRICS_CAP: &str = "
## The cap

`metrics.max_series` bounds the series of the span metrics (a series here is one set of labels: it has a counter, a histogram, and its
part of the errors). Nine places in ten are for series of spans' own, one in ten for series that stand for many.

- A series that is there goes on, whatever happens. Nothing is merged into another series.
- A service may have eight times as many series as there are places free: alone it comes to nine tenths of them, and one that puts ids into its span names
  leaves room for the others.
- Beyond its share the label with most distinct values in that service's series is folded: its span name, or a dimension. A new value of it is counted in a
  series whose value is `__other__`, with the label `otel_metric_overflow=\"true\"`, which begins at 0. Values that were there before keep getting series (up to 32 times the
  places that are free), and no other service notices.
- Where a series that stands for many finds no place either, all of the span's labels that can be folded are, and after that it is counted in one overflow
  series, whose only label is `otel_metric_overflow=\"true\"` and which needs no place. So are the spans of new services when no more than one in twenty is free, or when there are already half
  as many services as there are places.

`/stats` shows under `metrics.offenders` which label of which service is folded, about how many values it had (within a fifth or so), and how many spans its folded series hold.
What is folded, and what is not, follows from the order of spans in the log alone, so that it is the same after a restart.
With `metrics.expire_after` series that go make room, and their services are folded anew when they need it.
";

const METRICS_PROCESS: &str = "
The page also has the process's own metrics, on Linux, from the `prometheus` crate: `process_cpu_seconds_total`,
`process_open_fds`, `process_max_fds`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_start_time_seconds` and `process_threads`.

## Values of labels

| label | of | values |
|---|---|---|
";

fn metrics_page() -> String {
    let mut page = METRICS_HEAD.to_owned();
    for family in metrics::ALL {
        write_row(&mut page, family);
    }
    for seed in [&metrics::SEED_COUNT, &metrics::SEED_DURATION, &metrics::SEED_ERRORS] {
        writeln!(page, "| `{}NAME` | untyped |  |  | {} |", seed.prefix, seed.help).unwrap();
    }
    page.push_str(METRICS_PROFILES);
    for family in metrics::PROFILES {
        write_row(&mut page, family);
    }
    page.push_str(METRICS_PROCESS);
    let doors: Vec<_> = DoorReason::ALL.iter().map(|reason| reason.label()).collect();
    let tls: Vec<_> = TlsFailure::ALL.iter().map(|reason| reason.label()).collect();
    let rejects: Vec<_> = RejectReason::ALL.iter().map(|reason| reason.label()).collect();
    let oddities: Vec<_> = Oddity::ALL.iter().map(|oddity| oddity.label()).collect();
    let drops: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
    let results = verdict::Kind::ALL.map(verdict::Kind::label);
    let states = DestinationState::ALL.map(DestinationState::label);
    for (label, of, values) in [
        ("door", "doors", &["grpc", "http", "in_process"][..]),
        ("reason", "`nyx_door_requests_refused_total`, `nyx_door_refused_bytes_total`", &doors),
        ("reason", "`nyx_door_tls_failures_total`", &tls),
        ("reason", "`nyx_spans_rejected_total`", &rejects),
        ("oddity", "`nyx_spans_odd_total`", &oddities),
        ("reason", "`nyx_destination_dropped_spans_total`", &drops),
        ("result", "`nyx_self_tracing_spans_total`", &["exported", "failed", "dropped"]),
        ("part", "`nyx_retention_spans`", &["recent", "kept"]),
        ("operation", "`nyx_log_errors_total`", &["write", "sync", "read"]),
        ("reason", "`nyx_measure_unmeasured_spans_total`", &["damaged", "released"]),
        ("result", "`nyx_destination_requests_total`", &results),
        ("state", "`nyx_destination_state`", &states),
    ] {
        writeln!(page, "| `{label}` | {of} | {} |", listed(values)).unwrap();
    }
    page.push_str("\n`destination` is the name of an `[export.NAME]` table, `actor` the name of a child in the supervisor tree.\n");
    page.push_str(METRICS_CAP);
    page
}

fn write_row(page: &mut String, family: &metrics::Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Unknown => "untyped",
    };
    let unit = family.unit.map(Unit::name).unwrap_or_default();
    writeln!(page, "| `{}` | {kind} | {unit} | {} | {} |", family.name, listed(family.labels), family.help)
        .unwrap();
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A line of the log in the documents stands under a module that writes lines of its level.
#[test]
fn log_lines_in_the_documents_name_modules_that_log() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seen, mut wrong) = (0, Vec::new());
    for line in documents().values().flat_map(|text| text.lines()).map(str::trim_start) {
        let Some((level, rest)) = line.split_once(' ') else { continue };
        let Some((target, _message)) = rest.split_once(": ") else { continue };
        if !["ERROR", "WARN", "INFO", "DEBUG"].contains(&level) || !target.starts_with("nyx_") {
            continue;
        }
        let mut parts = target.split("::");
        let source = root.join(if parts.next() == Some("nyx_telemetry") { "actors/src" } else { "src" });
        let module = parts.fold(source, |path, part| path.join(part));
        let files = [module.with_extension("rs"), module.join("mod.rs"), module.join("main.rs")];
        let call = format!("{}!(", level.to_lowercase());
        if !files.iter().any(|file| fs::read_to_string(file).is_ok_and(|code| code.contains(&call))) {
            wrong.push(line.to_owned());
        }
        seen += 1;
    }
    assert!(seen > 30 && wrong.is_empty(), "of {seen}: {wrong:#?}");
}
