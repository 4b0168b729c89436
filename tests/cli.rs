//! The program from outside: exit statuses and what it prints. Environments are given whole, so nothing
//! of the machine's own shows through.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "the helpers of tests are tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use nyx_telemetry::tls::testing::Folder;

fn nyx_daemon(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_nyx-daemon"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file of this test's own.
fn file(name: &str, text: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_valid_configuration_is_called_valid() {
    let valid = (Some(0), "configuration is valid\n".to_owned(), String::new());
    assert_eq!(nyx_daemon(&["validate"], &[]), valid);
    let path = file("valid.toml", b"telemetry.prometheus_addr = \"127.0.0.1:0\"");
    assert_eq!(nyx_daemon(&["--config", &path, "validate"], &[("OTEL_SERVICE_NAME", "x")]), valid);
}

#[test]
fn a_bad_configuration_exits_78_with_every_problem_on_its_line() {
    let path = file("bad.toml", b"log.durability = \"disk\"\nlog.size = 1");
    let expected = format!(
        "nyx-daemon: the configuration is not valid\n  \
         log.durability is \"disk\" (file {path}, line 1): must be \"memory\", \"process\" or \"power\"\n  \
         log.size is 1 (file {path}, line 2): unknown key: [log] has durability, dir, lock_timeout, max_bytes, when_full, \
         min_free_bytes, segment_bytes, checkpoint_interval, memory_max_bytes\n  \
         runtime.io_threads is \"x\" (variable NYX__RUNTIME__IO_THREADS): must be a whole number from 0 to 256\n"
    );
    for command in ["validate", "run"] {
        let output = nyx_daemon(&[command, "--config", &path], &[("NYX__RUNTIME__IO_THREADS", "x")]);
        assert_eq!(output, (Some(78), String::new(), expected.clone()));
    }
}

#[test]
fn files_that_cannot_be_read_are_named_together() {
    let large = file("large.toml", &[b'#'; (1 << 20) + 1]);
    let binary = file("binary.toml", &[0xff]);
    let args = ["validate", "--config", "/nowhere/nyx.toml", "--config", &large, "--config", &binary];
    let expected = format!(
        "nyx-daemon: the configuration is not valid\n  \
         file /nowhere/nyx.toml: cannot be read: No such file or directory (os error 2)\n  \
         file {large}: is larger than 1048576 bytes\n  \
         file {binary}: cannot be read: stream did not contain valid UTF-8\n"
    );
    assert_eq!(nyx_daemon(&args, &[]), (Some(78), String::new(), expected));
}

#[test]
fn a_file_of_tokens_that_cannot_be_used_exits_78_and_no_token_is_shown() {
    let short = file("short.tokens", b"0123456789abcdef\nhush");
    let strange = file("strange.tokens", b"hush hush hush hush");
    let none = "/nowhere/tokens";
    let rule = "must be a file with a token a line";
    let length = "a token has 16 to 4096 bytes, such as `openssl rand -base64 32` makes";
    let character = "may be an ASCII letter, a digit or one of -._~+/, and at the end =";
    let ends = "empty asks for no token";
    for (of_doors, of_pages, why_doors, why_pages) in [
        (
            &*short,
            &*strange,
            format!("{rule}: line 2 has 4 bytes: {length}"),
            format!("{rule}: line 1, byte 5 of the token: {character}"),
        ),
        (
            none,
            "/",
            format!("{rule} that the daemon may read: No such file or directory (os error 2)"),
            format!("{rule}: it is no regular file"),
        ),
    ] {
        let config = format!(
            "[telemetry]\nprometheus_token_file = \"{of_pages}\"\n[ingest]\ntoken_file = \"{of_doors}\""
        );
        let config = file("tokens.toml", config.as_bytes());
        let expected = format!(
            "nyx-daemon: the configuration is not valid\n  \
             telemetry.prometheus_token_file is \"{of_pages}\" (file {config}, line 2): {why_pages}; {ends}\n  \
             ingest.token_file is \"{of_doors}\" (file {config}, line 4): {why_doors}; {ends}\n"
        );
        for command in ["validate", "run"] {
            let output = nyx_daemon(&[command, "--config", &config], &[]);
            assert_eq!(output, (Some(78), String::new(), expected.clone()));
        }
    }
}

#[test]
fn a_token_is_not_shown_and_what_may_be_too_open_earns_a_warning() {
    let tokens = file("open.tokens", b"hush-hush-hush-hush");
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
    let variables =
        [("NYX__INGEST__TOKEN_FILE", &*tokens), ("NYX__TELEMETRY__PROMETHEUS_ADDR", "0.0.0.0:9100")];
    let expected = format!(
        "warning: ingest.token_file is \"{tokens}\" (variable NYX__INGEST__TOKEN_FILE): every user of this machine may read \
         it (mode 0644): take that away with chmod o-r\n\
         warning: telemetry.prometheus_addr is \"0.0.0.0:9100\" (variable NYX__TELEMETRY__PROMETHEUS_ADDR): whoever reaches \
         it may read spans and metrics: set telemetry.prometheus_token_file, or listen on 127.0.0.1\n\
         configuration is valid\n"
    );
    assert_eq!(nyx_daemon(&["validate"], &variables), (Some(0), expected, String::new()));
    let (status, shown, _) = nyx_daemon(&["config", "show"], &variables);
    assert_eq!(status, Some(0));
    assert!(
        shown.contains(&format!("ingest.token_file = \"{tokens}\"")) && !shown.contains("hush"),
        "{shown}"
    );
}

#[test]
fn what_is_wrong_with_the_files_of_a_doors_tls_is_said_with_key_origin_and_file() {
    let folder = Folder::new("cli-door-tls");
    folder.write("text.pem", b"hello");
    let file = |name: &str| folder.path(name).display().to_string();
    let pem = "must hold a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----";
    let no_key = "must hold a private key in PEM that is not encrypted (PKCS #8, PKCS #1 or SEC 1)";
    let (server, key) = (file("server.pem"), file("server.key"));
    for (set, problems) in [
        (
            vec![("cert_file", file("no.pem")), ("key_file", file("no.key"))],
            vec![
                format!(
                    "cert_file: {:?} cannot be read: No such file or directory (os error 2)",
                    file("no.pem")
                ),
                format!(
                    "key_file: {:?} cannot be read: No such file or directory (os error 2)",
                    file("no.key")
                ),
            ],
        ),
        (
            vec![("cert_file", file("text.pem")), ("key_file", key.clone())],
            vec![format!("cert_file: {:?} {pem}", file("text.pem"))],
        ),
        (
            vec![("cert_file", server.clone()), ("key_file", file("text.pem"))],
            vec![format!("key_file: {:?} {no_key}", file("text.pem"))],
        ),
        (
            vec![("cert_file", server.clone()), ("key_file", file("client.key"))],
            vec![format!(
                "key_file: {:?} must hold the key of the certificate in {server:?}, not another",
                file("client.key")
            )],
        ),
        (
            vec![("cert_file", server.clone()), ("key_file", key.clone()), ("client_ca_file", key.clone())],
            vec![format!("client_ca_file: {key:?} {pem}")],
        ),
    ] {
        for door in ["grpc", "http"] {
            let flags = set.iter().map(|(key, value)| format!("--set=ingest.{door}.tls.{key}={value}"));
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| {
                    let (key, rest) = problem.split_once(": ").unwrap();
                    let key = format!("ingest.{door}.tls.{key}");
                    format!("  {key} (flag --set {key}): {rest}\n")
                })
                .collect();
            let expected = format!("nyx-daemon: the configuration is not valid\n{}", lines.concat());
            for command in ["validate", "run"] {
                let flags: Vec<String> = std::iter::once(command.to_owned()).chain(flags.clone()).collect();
                let args: Vec<&str> = flags.iter().map(String::as_str).collect();
                assert_eq!(nyx_daemon(&args, &[]), (Some(78), String::new(), expected.clone()));
            }
        }
    }
    let alone = format!("--set=ingest.grpc.tls.cert_file={server}");
    let (status, _, stderr) = nyx_daemon(&["validate", &alone], &[]);
    let expected = format!(
        "  ingest.grpc.tls.cert_file (flag --set ingest.grpc.tls.cert_file): {server:?} must not be set alone: set tls.key_file too\n"
    );
    assert!(status == Some(78) && stderr.ends_with(&expected), "{stderr}");

    let with_key = format!("--set=ingest.grpc.tls.key_file={key}");
    assert_eq!(nyx_daemon(&["validate", &alone, &with_key], &[]).0, Some(0));
    let unix = "--set=ingest.grpc.listen=unix:/run/nyx.sock";
    let (status, _, stderr) = nyx_daemon(&["validate", &alone, &with_key, unix], &[]);
    let rule = "must not be set: the door is unix:/run/nyx.sock, and TLS is spoken over TCP alone";
    let problem = |key: &str, file: &str| {
        let key = format!("ingest.grpc.tls.{key}");
        format!("  {key} (flag --set {key}): {file:?} {rule}\n")
    };
    let expected = problem("cert_file", &server) + &problem("key_file", &key);
    assert!(status == Some(78) && stderr.ends_with(&expected), "{stderr}");
    // A door that is off needs no files.
    let off = "--set=ingest.grpc.listen=";
    assert_eq!(nyx_daemon(&["validate", &alone, off], &[]).0, Some(0));
}

#[test]
fn a_rust_log_that_cannot_be_read_exits_78() {
    let (status, _, stderr) = nyx_daemon(&["validate"], &[("RUST_LOG", "a=b=c")]);
    assert_eq!(
        (status, stderr.as_str()),
        (
            Some(78),
            "nyx-daemon: variable RUST_LOG is \"a=b=c\": must be filter directives, such as warn or nyx_telemetry=debug\n"
        )
    );
}

#[test]
fn an_address_in_use_exits_69_and_names_its_key() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (key, variables) in [
        (
            "ingest.grpc.listen",
            [
                ("NYX__INGEST__GRPC__LISTEN", &*taken),
                ("NYX__INGEST__HTTP__LISTEN", ""),
                ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
            ],
        ),
        (
            "ingest.http.listen",
            [
                ("NYX__INGEST__GRPC__LISTEN", ""),
                ("NYX__INGEST__HTTP__LISTEN", &*taken),
                ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
            ],
        ),
        (
            "telemetry.prometheus_addr",
            [
                ("NYX__INGEST__GRPC__LISTEN", ""),
                ("NYX__INGEST__HTTP__LISTEN", ""),
                ("NYX__TELEMETRY__PROMETHEUS_ADDR", &*taken),
            ],
        ),
    ] {
        let expected =
            format!("nyx-daemon: cannot listen on {taken} ({key}): Address already in use (os error 98)\n");
        let variables = [variables[0], variables[1], variables[2], ("NYX__LOG__DURABILITY", "memory")];
        assert_eq!(nyx_daemon(&["run"], &variables), (Some(69), String::new(), expected));
    }
}

#[test]
fn a_bad_command_line_exits_64() {
    for args in [&["--confg", "x"][..], &["start"], &["validate", "--config"], &["demo", "--rate", "0"]] {
        let (status, stdout, stderr) = nyx_daemon(args, &[]);
        assert_eq!((status, stdout.as_str()), (Some(64), ""), "{args:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[test]
fn help_and_version_exit_0() {
    let (status, help, _) = nyx_daemon(&["--help"], &[]);
    assert_eq!(status, Some(0));
    assert!(help.contains("Usage: nyx-daemon [OPTIONS] [COMMAND]"), "{help}");
    let version = format!("nyx-daemon {}\n", nyx_daemon::cli::VERSION);
    assert_eq!(nyx_daemon(&["--version"], &[]), (Some(0), version, String::new()));
}

#[test]
fn every_layer_is_read_and_shown_in_its_order() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("layers");
    fs::create_dir_all(&folder).unwrap();
    // A Nyx node's own file lies there.
    let here = "[telemetry]\nservice_name = \"here\"\notlp_sampling_rate = 0.5\n[dht]\nport = 43301";
    fs::write(folder.join("nyx.toml"), here).unwrap();
    let named =
        file("named.toml", b"telemetry.service_name = \"named\"\n[export.default]\ncompression = \"gzip\"");
    let run = |args: &[&str]| {
        let args = [args, &["--config", &named, "--set", "runtime.io_threads=3"]].concat();
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush"),
            ("NYX__LOG__DURABILITY", "power"),
            ("NYX__RUNTIME__IO_THREADS", "2"),
        ];
        let output = Command::new(env!("CARGO_BIN_EXE_nyx-daemon"))
            .args(args)
            .env_clear()
            .envs(variables)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = run(&["config", "show"]);
    let named_origin = format!("file {named}");
    for line in [
        "telemetry.prometheus_enabled = true  # built-in",
        "telemetry.otlp_sampling_rate = 0.5  # file nyx.toml, line 3",
        &format!("telemetry.service_name = \"named\"  # {named_origin}, line 1"),
        &format!("export.default.compression = \"gzip\"  # {named_origin}, line 3"),
        "telemetry.otlp_endpoint = \"http://otel:1\"  # variable OTEL_EXPORTER_OTLP_ENDPOINT",
        "export.default.headers = { \"authorization\" = \"(redacted)\" }  # variable OTEL_EXPORTER_OTLP_HEADERS",
        "log.durability = \"power\"  # variable NYX__LOG__DURABILITY",
        "runtime.io_threads = 3  # flag --set runtime.io_threads",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert!(shown.starts_with("# file nyx.toml: not read, since a Nyx node's: [dht]\ntelemetry."), "{shown}");
    assert_eq!(
        run(&["validate"]),
        "file nyx.toml: not read, since a Nyx node's: [dht]\nconfiguration is valid\n"
    );
}

#[test]
fn a_shell_gets_its_completions() {
    let (status, script, stderr) = nyx_daemon(&["completions", "bash"], &[]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(
        script.contains("complete -F ") && script.contains("nyx-daemon") && script.contains("--config"),
        "{script}"
    );
    let (status, ..) = nyx_daemon(&["--set", "log.dir=/x", "completions", "bash"], &[]);
    assert_eq!(status, Some(64));
}
