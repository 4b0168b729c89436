//! Inputs that are more often right than wrong: lines with known keys.

use std::{collections::BTreeMap, sync::LazyLock};

use nyx_daemon::config::{Row, otel_variables, reference};

use super::{ENVIRONMENT, FLAGS, INCLUDED, included, secrets::SECRET};
use crate::{Rng, mutate::LENGTH_MAX, targets::Seeds};

/// Values as they stand in a file; in a variable or a flag without their quotes.
const VALUES: [&str; 44] = [
    "0",
    "1",
    "-1",
    "8192",
    "65536",
    "4294967296",
    "9223372036854775808",
    "170141183460469231731687303715884105728",
    "1e308",
    "1e999",
    "nan",
    "-0.0",
    "0.5",
    "0x10",
    "true",
    "false",
    "\"\"",
    "\"0s\"",
    "\"10ms\"",
    "\"1h\"",
    "\"1week\"",
    "\"99999999999999999999s\"",
    "\"64KiB\"",
    "\"64 MiB\"",
    "\"1TiB\"",
    "\"99999999999TiB\"",
    "\"http://localhost:4317\"",
    "\"http://[::1]:4317/path\"",
    "\"https://a.example\"",
    "\"http://user:hush-2f9c@a.example:1\"",
    "\"unix:/run/a\"",
    "\"127.0.0.1:14317\"",
    "\"[::]:9100\"",
    "\"127.0.0.1:0\"",
    "\"memory\"",
    "\"power\"",
    "\"grpc\"",
    "\"http/protobuf\"",
    "\"gzip\"",
    "\"/dev/null\"",
    "[\"a\", 1, { b = [] }]",
    "{ authorization = \"Bearer hush-2f9c\" }",
    "\"authorization=Bearer%20hush-2f9c,x-tenant=1\"",
    "1979-05-27",
];

/// The rows of the reference.
static ROWS: LazyLock<Vec<Row>> =
    LazyLock::new(|| reference().unwrap_or_default().into_iter().flat_map(|table| table.rows).collect());

/// Puts lines with known keys into it.
pub(in super::super) fn shape(rng: &mut Rng, input: &mut Vec<u8>) {
    if rng.one_in(4) {
        return;
    }
    match rng.below(4) {
        0 => *input = right(rng),
        1 => *input = expanded(input),
        _ => {}
    }
    if rng.one_in(3) {
        return;
    }
    for _ in 0..=rng.below(3) {
        let (line, behind) = line(rng);
        let at = place(rng, input, behind);
        input.splice(at..at, line.into_bytes());
    }
    input.truncate(LENGTH_MAX);
}

/// With the files of `config/` in the place of their includes.
fn expanded(input: &[u8]) -> Vec<u8> {
    let lines = input.split_inclusive(|&byte| byte == b'\n');
    lines
        .flat_map(|line| included(line.strip_suffix(b"\n").unwrap_or(line)).unwrap_or(line))
        .copied()
        .collect()
}

/// A file of keys with their own values, in any order, and a few of them as variables or flags.
fn right(rng: &mut Rng) -> Vec<u8> {
    let mut keys = BTreeMap::new();
    for _ in 0..rng.below(20) {
        let Some(row) = rng.pick(&ROWS) else { continue };
        let of_default = row.key.name.contains(".NAME.");
        let name = if of_default && rng.one_in(2) { "a" } else { "default" };
        if let Some(default) = &row.default {
            keys.insert(
                row.key.name.replace("NAME", name),
                (row.variable.replace("NAME", &name.to_uppercase()), default),
            );
        }
    }
    let (mut file, mut variables, mut flags) = (Vec::new(), vec!["#! environment".to_owned()], Vec::new());
    if keys.keys().any(|key| key.starts_with("export.a.")) {
        file.push("export.a.endpoint = \"http://a:1\"".to_owned());
    }
    flags.push("#! flags".to_owned());
    for (key, (variable, default)) in keys {
        let text = default.trim_matches('"');
        match rng.below(6) {
            // Of pairs the text is another one.
            0 if !default.starts_with('{') => variables.push(format!("{variable}={text}")),
            1 if !default.starts_with('{') => flags.push(format!("{key}={text}")),
            _ => file.push(format!("{key} = {default}")),
        }
    }
    [file, variables, flags, vec![String::new()]].concat().join("\n").into_bytes()
}

/// A line, and behind which one it belongs; the file has none.
fn line(rng: &mut Rng) -> (String, Option<&'static [u8]>) {
    let name = ["default", "a", "by-file", "A b"].get(rng.below(4)).copied().unwrap_or_default();
    let value = rng.pick(&VALUES).copied().unwrap_or_default();
    let text = value.trim_matches('"');
    let Some(row) = rng.pick(&ROWS) else { return (String::new(), None) };
    let key = row.key.name.replace("NAME", name);
    let value = match &row.default {
        Some(default) if rng.one_in(3) => default.as_str(),
        _ => value,
    };
    match rng.below(8) {
        0..4 => (format!("{key} = {value}\n"), None),
        4 => (format!("[{}]\n", key.rsplit_once('.').map_or(key.as_str(), |(table, _)| table)), None),
        5 => (format!("{}={text}\n", row.variable.replace("NAME", &name.to_uppercase())), Some(ENVIRONMENT)),
        6 => {
            let otel = otel_variables();
            let variable = rng.pick(&otel).map_or("RUST_LOG", |(variable, _)| variable);
            (format!("{variable}={text}\n"), Some(ENVIRONMENT))
        }
        _ => (format!("{key}={text}\n"), Some(FLAGS)),
    }
}

/// Where a line can begin: in the file, or behind this one, which is added where there is none.
fn place(rng: &mut Rng, input: &mut Vec<u8>, behind: Option<&[u8]>) -> usize {
    match behind {
        None => {
            let starts = input.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at + 1);
            let starts: Vec<usize> = std::iter::once(0).chain(starts).collect();
            rng.pick(&starts).copied().unwrap_or_default()
        }
        Some(mark) => {
            let find = |input: &[u8]| input.windows(mark.len()).position(|window| window == mark);
            if find(input).is_none() {
                input.extend_from_slice(b"\n");
                input.extend_from_slice(mark);
                input.extend_from_slice(b"\n");
            }
            find(input).map_or(input.len(), |at| (at + mark.len() + 1).min(input.len()))
        }
    }
}

pub(in super::super) fn seeds() -> Seeds {
    let mut seeds: Vec<(&'static str, Vec<u8>)> = INCLUDED
        .iter()
        .map(|(name, _)| (*name, format!("{}{name}\n", super::INCLUDE).into_bytes()))
        .collect();
    let secrets = format!(
        "[export.archive]\nendpoint = \"http://archive:4317\"\nheaders = {{ authorization = \"Bearer {SECRET}\" }}\n\
         [export.default]\nheaders.x-token = \"{SECRET}\" # {SECRET}\n\
         #! environment\nHOME=/home/me\nOTEL_EXPORTER_OTLP_TRACES_HEADERS=authorization=Bearer%20{SECRET}\n\
         #! flags\nexport.archive.headers=authorization={SECRET},x=1\n"
    );
    let wrong = format!(
        "telemetry.otlp_endpoint = \"http://me:{SECRET}@host:4317\"\ntoken = \"{SECRET}\"\n\
         [export.default]\nheaders = \"Bearer {SECRET}\"\nheader = {{ authorization = \"{SECRET}\" }}\n\
         [ingest.grpc]\nlisten = \"127.0.0.1:9100\"\nlisten_on = 5\n[loog]\ndir = 1\n\
         #! environment\nNYX__TELEMETRY__TOKEN={SECRET}\nNYX_LOG_DIR=/x\nOTEL_TRACES_SAMPLER=xray\n\
         NYX__EXPORT__DEFAULT__HEADERS__AUTHORIZATION={SECRET}\nOTEL_EXPORTER_OTLP_HEADERS=Bearer {SECRET}\n\
         #! flags\nlog=1\nlog.dir.x=2\n.=3\n"
    );
    let variables = "#! environment\nSTATE_DIRECTORY=/var/lib/nyx:/b\nRUST_LOG=nyx_telemetry=debug\n\
         NYX__LOG__MAX_BYTES=1TiB\nNYX__EXPORT__B__ENDPOINT=unix:/b\nNYX__EXPORT__B__SAMPLING_RATE=0.5\n\
         OTEL_SERVICE_NAME=shop\nOTEL_RESOURCE_ATTRIBUTES=host.name=a \"b\"%2C,x=1\nOTEL_TRACES_SAMPLER=traceidratio\n\
         OTEL_TRACES_SAMPLER_ARG=0.25\nOTEL_EXPORTER_OTLP_ENDPOINT=collector:4317\nOTEL_EXPORTER_OTLP_INSECURE=true\n\
         OTEL_BSP_SCHEDULE_DELAY=500\nOTEL_BSP_MAX_QUEUE_SIZE=9\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n";
    let broken = format!("[export.default]\nheaders.authorization = Bearer {SECRET}\n");
    seeds.extend([
        ("secrets", secrets.into_bytes()),
        ("wrong", wrong.into_bytes()),
        ("variables", variables.as_bytes().to_vec()),
        ("broken", broken.into_bytes()),
        ("empty", Vec::new()),
    ]);
    Ok(seeds)
}
