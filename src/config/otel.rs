//! The layer of OpenTelemetry's own variables, which describe the destination `default` and the daemon itself.
//!
//! After the specification an empty one counts as unset. One that cannot be read is an error here, and so is one that asks for
//! what nyx does not have: a setting that is ignored in silence is found out too late.

use config::{Map, Value};

use super::{
    environment::Environment,
    layers::VARIABLE,
    pairs,
    read::{shortened, shown},
    variables::{set, text_value},
};

/// What a variable can ask for and nyx does not have: the variable, the values that ask for it (none: any), and what it
/// is. To be shortened by whoever adds it, who says in [`VARIABLES`] what the variable then sets.
const MISSING: &[(&str, &[&str], &str)] = &[
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["http/json"], "OTLP in JSON"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["http/json"], "OTLP in JSON"),
    (
        "OTEL_TRACES_SAMPLER",
        &["jaeger_remote", "parentbased_jaeger_remote", "xray"],
        "sampling that is decided elsewhere",
    ),
];

/// What becomes of the text of a variable.
enum Reading {
    /// It is the value of these keys.
    As(&'static [&'static str]),
    /// A number of milliseconds, of these keys.
    Milliseconds(&'static [&'static str]),
    /// The endpoint; without a scheme, `OTEL_EXPORTER_OTLP_[TRACES_]INSECURE` says which.
    Endpoint,
    /// The same with the path of traces.
    TracesEndpoint,
    /// True or false, read together with the endpoint.
    Insecure,
    /// True: nothing is exported.
    Disabled,
    /// `name=value,name=value`.
    Resource,
    /// A sampler's name.
    Sampler,
    /// Read together with the sampler.
    SamplerArgument,
    /// Spans that may wait: here their bytes are bounded.
    QueueSize,
}

/// A variable of OpenTelemetry.
struct Variable {
    name: &'static str,
    reading: Reading,
    meaning: &'static str,
}

const fn variable(name: &'static str, reading: Reading, meaning: &'static str) -> Variable {
    Variable { name, reading, meaning }
}

const ENDPOINT: &str = "telemetry.otlp_endpoint";
const SERVICE_NAME: &str = "telemetry.service_name";
/// The path that the specification gives an endpoint of traces.
const TRACES_PATH: &str = "/v1/traces";
const RESOURCE: &str = "telemetry.resource";
const SAMPLING_RATE: &str = "telemetry.otlp_sampling_rate";
const SPAN_EXPORT: &str = "telemetry.span_export_enabled";
const TIMEOUT: &[&str] = &["export.default.timeout"];
const HEADERS: &[&str] = &["export.default.headers"];
const CA_FILE: &[&str] = &["export.default.tls.ca_file"];
const CERT_FILE: &[&str] = &["export.default.tls.cert_file"];
const KEY_FILE: &[&str] = &["export.default.tls.key_file"];
const PROTOCOL: &[&str] = &["export.default.protocol"];
const COMPRESSION: &[&str] = &["export.default.compression"];
const MAX_DELAY: &[&str] = &["export.default.batch.max_delay"];
const BATCH: &[&str] = &["export.default.batch.min_spans", "export.default.batch.max_spans"];

/// The variables that are read, each behind those that it beats.
const VARIABLES: &[Variable] = &[
    variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        Reading::Resource,
        "`telemetry.resource`, and its `service.name` `telemetry.service_name`",
    ),
    variable("OTEL_SERVICE_NAME", Reading::As(&[SERVICE_NAME]), "`telemetry.service_name`"),
    variable(
        "OTEL_SDK_DISABLED",
        Reading::Disabled,
        "`true`: `telemetry.span_export_enabled` is false; `false` changes nothing",
    ),
    variable(
        "OTEL_TRACES_SAMPLER",
        Reading::Sampler,
        "`telemetry.otlp_sampling_rate`: `always_on` is 1, `always_off` 0, `traceidratio` the number in `OTEL_TRACES_SAMPLER_ARG`, 1 without; each with `parentbased_` before it means the same here, where a trace is kept or left out as a whole",
    ),
    variable(
        "OTEL_TRACES_SAMPLER_ARG",
        Reading::SamplerArgument,
        "see `OTEL_TRACES_SAMPLER`, without which it is not looked at",
    ),
    variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        Reading::Milliseconds(MAX_DELAY),
        "`export.default.batch.max_delay`, in milliseconds",
    ),
    variable(
        "OTEL_BSP_EXPORT_TIMEOUT",
        Reading::Milliseconds(TIMEOUT),
        "`export.default.timeout`, in milliseconds",
    ),
    variable(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        Reading::QueueSize,
        "nothing, and a line at the start says so: what waits is bounded in bytes, by `log.max_bytes`",
    ),
    variable(
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        Reading::As(BATCH),
        "`export.default.batch.min_spans` and `export.default.batch.max_spans`: a batch goes out when so many wait, with so many",
    ),
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", Reading::Endpoint, "`telemetry.otlp_endpoint`"),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        Reading::TracesEndpoint,
        "`telemetry.otlp_endpoint`, without the `/v1/traces` in which a path has to end",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_INSECURE",
        Reading::Insecure,
        "of an endpoint without a scheme: `true` is `http://`, `false` `https://`",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
        Reading::Insecure,
        "of an endpoint without a scheme: `true` is `http://`, `false` `https://`",
    ),
    variable("OTEL_EXPORTER_OTLP_PROTOCOL", Reading::As(PROTOCOL), "`export.default.protocol`"),
    variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", Reading::As(PROTOCOL), "`export.default.protocol`"),
    variable("OTEL_EXPORTER_OTLP_HEADERS", Reading::As(HEADERS), "`export.default.headers`"),
    variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Reading::As(HEADERS), "`export.default.headers`"),
    variable("OTEL_EXPORTER_OTLP_COMPRESSION", Reading::As(COMPRESSION), "`export.default.compression`"),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        Reading::As(COMPRESSION),
        "`export.default.compression`",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        Reading::Milliseconds(TIMEOUT),
        "`export.default.timeout`, in milliseconds",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        Reading::Milliseconds(TIMEOUT),
        "`export.default.timeout`, in milliseconds",
    ),
    variable("OTEL_EXPORTER_OTLP_CERTIFICATE", Reading::As(CA_FILE), "`export.default.tls.ca_file`"),
    variable("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", Reading::As(CA_FILE), "`export.default.tls.ca_file`"),
    variable("OTEL_EXPORTER_OTLP_CLIENT_KEY", Reading::As(KEY_FILE), "`export.default.tls.key_file`"),
    variable("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", Reading::As(KEY_FILE), "`export.default.tls.key_file`"),
    variable(
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        Reading::As(CERT_FILE),
        "`export.default.tls.cert_file`",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        Reading::As(CERT_FILE),
        "`export.default.tls.cert_file`",
    ),
];

/// The variables of OpenTelemetry that are read, and what each sets, in Markdown. A later one beats those before it.
pub fn otel_variables() -> Vec<(&'static str, &'static str)> {
    VARIABLES.iter().map(|variable| (variable.name, variable.meaning)).collect()
}

/// The layer. What an operator should know of it and is no error is added to `notices`.
pub(super) fn layer(
    environment: &Environment,
    problems: &mut Vec<String>,
    notices: &mut Vec<String>,
) -> Map<String, Value> {
    let mut layer = Layer { environment, values: Map::new(), notices };
    for variable in VARIABLES {
        let read = match text(environment, variable.name) {
            Ok(Some(text)) => layer.read(variable, text),
            Ok(None) => Ok(()),
            Err(problem) => Err(problem),
        };
        problems.extend(read.err());
    }
    layer.values
}

/// The text of a variable that is set and not empty.
fn text<'e>(environment: &'e Environment, name: &str) -> Result<Option<&'e str>, String> {
    Ok(environment.text(name)?.filter(|text| !text.is_empty()))
}

struct Layer<'e> {
    environment: &'e Environment,
    values: Map<String, Value>,
    notices: &'e mut Vec<String>,
}

impl Layer<'_> {
    fn read(&mut self, variable: &Variable, text: &str) -> Result<(), String> {
        let name = variable.name;
        let missing = MISSING
            .iter()
            .find(|(missing, values, _)| *missing == name && (values.is_empty() || values.contains(&text)));
        if let Some((_, values, what)) = missing {
            // The names of files and of protocols are no secrets.
            let shown = if values.is_empty() { String::new() } else { format!(" is {text:?}") };
            return Err(format!(
                "{VARIABLE}{name}{shown}: asks for {what}, which is not part of this version: unset it"
            ));
        }
        match variable.reading {
            Reading::As(keys) => self.set_all(keys, name, text),
            Reading::Milliseconds(keys) => {
                let ms: u64 = text.trim().parse().map_err(|_| {
                    format!(
                        "{VARIABLE}{name} is {:?}: must be a whole number of milliseconds",
                        shortened(text)
                    )
                })?;
                self.set_all(keys, name, &format!("{ms}ms"));
            }
            Reading::Endpoint => {
                let endpoint = self.with_scheme(text)?;
                self.set_all(&[ENDPOINT], name, &endpoint);
            }
            Reading::TracesEndpoint => {
                let endpoint = self.with_scheme(text)?;
                let path = endpoint.split_once("://").and_then(|(_, rest)| Some(rest.split_once('/')?.1));
                let base = endpoint.trim_end_matches('/').strip_suffix(TRACES_PATH);
                if base.is_none() && path.is_some_and(|path| !path.is_empty()) {
                    return Err(format!(
                        "{VARIABLE}{name} is {}: must end in {TRACES_PATH}, if it has a path: set {ENDPOINT} and \
                         export.default.path for another",
                        shown(&text_value("", text))
                    ));
                }
                self.set_all(&[ENDPOINT], name, base.unwrap_or(&endpoint));
            }
            Reading::Insecure => drop(flag(name, text)?),
            Reading::Disabled => {
                if flag(name, text)? {
                    self.set_all(&[SPAN_EXPORT], name, "false");
                }
            }
            Reading::Resource => self.resource(name, text)?,
            Reading::Sampler => {
                let rate = self.rate(name, text)?;
                self.set_all(&[SAMPLING_RATE], name, &rate);
            }
            Reading::SamplerArgument => {}
            Reading::QueueSize => {
                text.trim().parse::<u64>().map_err(|_| {
                    format!("{VARIABLE}{name} is {:?}: must be a whole number of spans", shortened(text))
                })?;
                self.notices.push(format!(
                    "{VARIABLE}{name} has no effect: what waits is bounded in bytes, by log.max_bytes"
                ));
            }
        }
        Ok(())
    }

    fn set_all(&mut self, keys: &[&str], name: &str, text: &str) {
        for key in keys {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            // Nothing is in the way: all keys here are leaves.
            set(&mut self.values, &path, text_value(&format!("{VARIABLE}{name}"), text));
        }
    }

    /// `OTEL_EXPORTER_OTLP_[TRACES_]INSECURE` counts for an endpoint that says neither `http` nor `https`.
    fn with_scheme(&self, endpoint: &str) -> Result<String, String> {
        if endpoint.contains("://") || endpoint.starts_with("unix:") {
            return Ok(endpoint.to_owned());
        }
        let of_traces = text(self.environment, "OTEL_EXPORTER_OTLP_TRACES_INSECURE")?
            .map(|text| flag("OTEL_EXPORTER_OTLP_TRACES_INSECURE", text));
        let insecure = match of_traces {
            Some(insecure) => Some(insecure),
            None => text(self.environment, "OTEL_EXPORTER_OTLP_INSECURE")?
                .map(|text| flag("OTEL_EXPORTER_OTLP_INSECURE", text)),
        };
        match insecure {
            Some(Ok(true)) => Ok(format!("http://{endpoint}")),
            Some(Ok(false)) => Ok(format!("https://{endpoint}")),
            // Its own error is said once, by itself.
            Some(Err(_)) | None => Ok(endpoint.to_owned()),
        }
    }

    fn resource(&mut self, name: &str, text: &str) -> Result<(), String> {
        let Some(attributes) = pairs::parse(text) else {
            return Err(format!("{VARIABLE}{name}: {}", pairs::RULE));
        };
        let (service, others): (Vec<_>, Vec<_>) =
            attributes.into_iter().partition(|(name, _)| name == "service.name");
        if let Some((_, service)) = service.last() {
            self.set_all(&[SERVICE_NAME], name, service);
        }
        if !others.is_empty() {
            self.set_all(&[RESOURCE], name, &pairs::text(&others));
        }
        Ok(())
    }

    fn rate(&self, name: &str, sampler: &str) -> Result<String, String> {
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => Ok("1".to_owned()),
            "always_off" => Ok("0".to_owned()),
            "traceidratio" => {
                const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
                let Some(text) = text(self.environment, ARGUMENT)? else { return Ok("1".to_owned()) };
                let rate: Option<f64> = text.trim().parse().ok();
                match rate.filter(|rate| (0.0..=1.0).contains(rate)) {
                    Some(_) => Ok(text.to_owned()),
                    None => Err(format!(
                        "{VARIABLE}{ARGUMENT} is {:?}: must be a number from 0 to 1",
                        shortened(text)
                    )),
                }
            }
            _ => Err(format!(
                "{VARIABLE}{name} is {:?}: must be \"always_on\", \"always_off\" or \"traceidratio\", or one of them \
                 behind \"parentbased_\"",
                shortened(sampler)
            )),
        }
    }
}

/// After the specification a case does not matter; what is neither true nor false is an error here.
fn flag(name: &str, text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{VARIABLE}{name} is {:?}: must be true or false", shortened(text))),
    }
}
