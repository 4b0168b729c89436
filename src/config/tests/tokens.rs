//! Files of tokens, and the warnings about them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use nyx_telemetry::tls::testing::Folder;

use super::{load, load_all};

/// A file that is gone with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str, mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("nyx-config-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

#[test]
fn tokens_are_read_with_the_configuration_and_nothing_shows_them() {
    let doors = File::new("doors", "hush-hush-hush-hush\n", 0o600);
    let pages = File::new("pages", "hush-hush-hush-pages\n", 0o600);
    let variables =
        [("NYX__INGEST__TOKEN_FILE", doors.text()), ("NYX__TELEMETRY__PROMETHEUS_TOKEN_FILE", pages.text())];
    let all = load_all(&[], &variables, &[]).unwrap();
    let (of_doors, of_pages) =
        (all.config.ingest.token_file.as_ref(), all.config.telemetry.prometheus_token_file.as_ref());
    assert!(of_doors.unwrap().tokens.accept(b"hush-hush-hush-hush"));
    assert!(of_pages.unwrap().tokens.accept(b"hush-hush-hush-pages"));
    assert_eq!(all.warnings, [""; 0]);
    let shown = all.show();
    let line = format!("ingest.token_file = \"{}\"  # variable NYX__INGEST__TOKEN_FILE", doors.text());
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    for text in [shown, format!("{all:?}")] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn a_file_of_tokens_that_cannot_be_used_is_refused_with_its_key_file_and_line() {
    let short = File::new("short", "# ours\nhush", 0o600);
    let place = short.text();
    let rule = "must be a file with a token a line: line 2 has 4 bytes: a token has 16 to 4096 bytes, such as \
                `openssl rand -base64 32` makes; empty asks for no token";
    for (table, key) in [("ingest", "token_file"), ("telemetry", "prometheus_token_file")] {
        let file = format!("[{table}]\n{key} = \"{place}\"");
        let expected = format!("{table}.{key} is \"{place}\" (file a.toml, line 2): {rule}");
        assert_eq!(load(&[&file], &[]).unwrap_err(), [expected]);
    }
    assert_eq!(
        load(&["ingest.token_file = 1"], &[]).unwrap_err(),
        ["ingest.token_file is 1 (file a.toml, line 1): must be a text"]
    );
}

#[test]
fn a_file_of_tokens_that_everybody_may_read_earns_a_warning() {
    let file = File::new("open", "0123456789abcdef", 0o644);
    let loaded = load_all(&[&format!("ingest.token_file = \"{}\"", file.text())], &[], &[]).unwrap();
    let expected = format!(
        "ingest.token_file is \"{}\" (file a.toml, line 1): every user of this machine may read it (mode 0644): take that \
         away with chmod o-r",
        file.text()
    );
    assert_eq!(loaded.warnings, [expected]);
}

#[test]
fn an_address_that_others_may_reach_earns_a_warning_unless_a_token_or_a_certificate_is_asked_for() {
    let everywhere = [
        ("NYX__INGEST__GRPC__LISTEN", "0.0.0.0:14317"),
        ("NYX__INGEST__HTTP__LISTEN", "[::]:14318"),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "10.0.0.1:9100"),
    ];
    let warnings = |variables: &[(&str, &str)]| load_all(&[], variables, &[]).unwrap().warnings;
    let doors = [("grpc", "GRPC", "0.0.0.0:14317"), ("http", "HTTP", "[::]:14318")].map(|(door, variable, at)| {
        format!(
            "ingest.{door}.listen is \"{at}\" (variable NYX__INGEST__{variable}__LISTEN): whoever reaches it may send spans: \
             set ingest.token_file, or listen on 127.0.0.1"
        )
    });
    let pages = "telemetry.prometheus_addr is \"10.0.0.1:9100\" (variable NYX__TELEMETRY__PROMETHEUS_ADDR): whoever reaches it \
                 may read spans and metrics: set telemetry.prometheus_token_file, or listen on 127.0.0.1";
    assert_eq!(warnings(&everywhere), [&doors[0], &doors[1], pages]);

    let file = File::new("asks", "0123456789abcdef", 0o600);
    let of_doors = [&everywhere[..], &[("NYX__INGEST__TOKEN_FILE", file.text())]].concat();
    assert_eq!(warnings(&of_doors), [pages]);
    let of_pages = [&everywhere[..], &[("NYX__TELEMETRY__PROMETHEUS_TOKEN_FILE", file.text())]].concat();
    assert_eq!(warnings(&of_pages), doors);

    let folder = Folder::new("warnings");
    let files = [("CERT_FILE", "server.pem"), ("KEY_FILE", "server.key"), ("CLIENT_CA_FILE", "ca.pem")];
    let files = files.map(|(key, name)| {
        (format!("NYX__INGEST__GRPC__TLS__{key}"), folder.path(name).display().to_string())
    });
    let mut with_tls = everywhere.to_vec();
    with_tls.extend(files.iter().map(|(name, path)| (&**name, &**path)));
    assert_eq!(warnings(&with_tls), [&*doors[1], pages], "who shows a certificate is known");
    with_tls.pop();
    assert_eq!(warnings(&with_tls), [&doors[0], &doors[1], pages], "TLS alone asks nobody");

    let near = [
        ("NYX__INGEST__GRPC__LISTEN", "unix:/run/nyx/otlp.sock"),
        ("NYX__INGEST__HTTP__LISTEN", "[::ffff:127.0.0.2]:14318"),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "[::1]:9100"),
    ];
    assert_eq!(warnings(&near), [""; 0]);
}
