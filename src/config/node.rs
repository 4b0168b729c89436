//! The configuration file of a Nyx node, `nyx.toml`: nyx reads its `[telemetry]` and leaves the rest to the node.
//!
//! The names are those of `nyx.toml` and `examples/full_config.toml` in the node's repository, Nyx-Protocol/Nyx, as of its
//! commit `bce06f4`: five keys, and fourteen tables beside `[telemetry]`.

use config::{Map, Value, ValueKind};

/// The tables of a node's file that are not ours.
pub const NODE_TABLES: [&str; 14] = [
    "cli",
    "crypto",
    "development",
    "dht",
    "endpoints",
    "limits",
    "low_power",
    "mix",
    "monitoring",
    "multipath",
    "network",
    "performance",
    "plugins",
    "security",
];

/// The keys outside of tables in a node's file.
pub const NODE_KEYS: [&str; 5] = ["bootstrap_peers", "listen_port", "log_format", "log_level", "node_id"];

/// Takes out what is the node's; the names of what was there, tables in brackets. A table's name on anything but a table
/// stays, and so the other way round: that is no node's.
pub(super) fn take(values: &mut Map<String, Value>) -> Vec<String> {
    let is_table = |values: &Map<String, Value>, name: &str| {
        values.get(name).map(|value| matches!(value.kind, ValueKind::Table(_)))
    };
    let mut taken = Vec::new();
    for (names, tables) in [(&NODE_KEYS[..], false), (&NODE_TABLES[..], true)] {
        for &name in names {
            if is_table(values, name) == Some(tables) {
                values.remove(name);
                taken.push(if tables { format!("[{name}]") } else { name.to_owned() });
            }
        }
    }
    taken
}
