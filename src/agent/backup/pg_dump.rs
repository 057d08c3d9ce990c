//! The options of pg_dump for one database.

use std::time::Duration;

use super::chunks::Chunked;
use super::relations::Relation;
use super::selection::Selection;
use crate::api::backup::{Compression, CompressionMethod, UnloggedTableData};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::backup::Sections;
use crate::plan::backup_steps::Steps;

/// How long pg_dump waits for its locks. A definition change that queued behind the exporter's locks would make it wait
/// for ever: neither sees a deadlock.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Programs take at most 2 MiB of arguments and environment (Linux, `execve`); the connection needs some of it.
const NAMES_LIMIT_BYTES: usize = 1_500_000;

/// `--compress=METHOD:LEVEL` came with this major version; before it, `-Z LEVEL` meant gzip.
const FIRST_WITH_METHODS: u32 = 16;

/// Encoding of a database whose bytes have none; they must come back as they are.
pub(in crate::agent) const NO_ENCODING: &str = "SQL_ASCII";

/// Bytes that more names may take beside those of the selection.
pub(super) fn room_for_names(selection: &Selection<'_>, relations: &[Relation]) -> usize {
    NAMES_LIMIT_BYTES.saturating_sub(names_bytes(&selection.arguments(relations)))
}

fn names_bytes(names: &[String]) -> usize {
    names.iter().map(|name| name.len() + 1).sum()
}

/// Every option but the connection. The rows of `chunked` tables are left out.
pub(super) fn arguments(
    steps: &Steps,
    selection: &Selection<'_>,
    chunked: &Chunked,
    relations: &[Relation],
    snapshot: &str,
    server_encoding: &str,
) -> Result<Vec<String>, Refusal> {
    let encoding = if server_encoding == NO_ENCODING {
        NO_ENCODING
    } else {
        "UTF8"
    };
    let mut arguments = vec![
        "--format=custom".to_owned(),
        format!("--encoding={encoding}"),
        format!("--snapshot={snapshot}"),
        format!("--lock-wait-timeout={}", LOCK_WAIT.as_millis()),
    ];
    arguments.extend(compression(&steps.compression, steps.client_major));
    match steps.sections {
        Sections::All => {}
        Sections::Schema => arguments.push("--schema-only".into()),
        Sections::Data => arguments.push("--data-only".into()),
    }
    if steps.unlogged_table_data == UnloggedTableData::Exclude {
        arguments.push("--no-unlogged-table-data".into());
    }
    let names = selection.arguments(relations);
    if names_bytes(&names) > NAMES_LIMIT_BYTES {
        return Err(Refusal::permanent(
            reasons::INVALID_SPEC,
            format!(
                "The backup chooses {} tables and schemas by name, more than pg_dump's command line takes.",
                names.len()
            ),
        )
        .hint("Choose by schema, or choose the smaller part with exclude in place of include."));
    }
    arguments.extend(names);
    arguments.extend(chunked.arguments());
    Ok(arguments)
}

fn compression(compression: &Compression, client_major: u32) -> Option<String> {
    let Compression { method, level } = compression;
    let level = |separator: &str| level.map(|level| format!("{separator}{level}")).unwrap_or_default();
    if client_major < FIRST_WITH_METHODS {
        return match method {
            CompressionMethod::None => Some("--compress=0".into()),
            _ if level("").is_empty() => None,
            _ => Some(format!("--compress={}", level(""))),
        };
    }
    Some(match method {
        CompressionMethod::None => "--compress=none".into(),
        CompressionMethod::Gzip => format!("--compress=gzip{}", level(":")),
        CompressionMethod::Lz4 => format!("--compress=lz4{}", level(":")),
        CompressionMethod::Zstd => format!("--compress=zstd{}", level(":")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(method: CompressionMethod, level: Option<u8>, major: u32) -> String {
        compression(&Compression { method, level }, major).unwrap_or_default()
    }

    #[test]
    fn compression_is_said_as_the_client_understands_it() {
        assert_eq!(option(CompressionMethod::Zstd, Some(1), 16), "--compress=zstd:1");
        assert_eq!(option(CompressionMethod::Lz4, None, 18), "--compress=lz4");
        assert_eq!(option(CompressionMethod::None, None, 17), "--compress=none");
        assert_eq!(option(CompressionMethod::Gzip, Some(9), 15), "--compress=9");
        assert_eq!(option(CompressionMethod::Gzip, None, 15), "");
        assert_eq!(option(CompressionMethod::None, None, 14), "--compress=0");
    }
}
