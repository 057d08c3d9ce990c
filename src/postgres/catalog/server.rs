//! The server: versions, settings, tablespaces.

use std::collections::BTreeMap;

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::store::manifest::{Connector, ServerManifest, TablespaceManifest};

/// Settings of the server that describe it. None of them can hold a secret.
pub const SETTINGS: &[&str] = &[
    "TimeZone",
    "archive_mode",
    "autovacuum",
    "block_size",
    "config_file",
    "data_checksums",
    "data_directory",
    "default_text_search_config",
    "default_toast_compression",
    "effective_cache_size",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "integer_datetimes",
    "jit",
    "lc_collate",
    "lc_ctype",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "maintenance_work_mem",
    "max_connections",
    "max_locks_per_transaction",
    "max_parallel_workers",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_wal_size",
    "max_worker_processes",
    "password_encryption",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "shared_buffers",
    "shared_preload_libraries",
    "ssl",
    "standard_conforming_strings",
    "synchronous_commit",
    "wal_block_size",
    "wal_compression",
    "wal_level",
    "wal_segment_size",
    "work_mem",
];

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<ServerManifest, Refusal> {
    let settings = reader.session().settings();
    let base = ServerManifest {
        connector: Connector::Postgresql,
        host: settings.host(),
        port: settings.port(),
        user: settings.user().to_owned(),
        encrypted: reader.session().is_encrypted(),
        ..ServerManifest::default()
    };
    let sql = "SELECT current_setting('server_version') AS version, \
                      current_setting('server_version_num')::bigint AS version_number, \
                      version() AS version_text, pg_is_in_recovery() AS in_recovery";
    let mut server = reader
        .one("version of the server", sql, &[], |row| {
            Ok(ServerManifest {
                version: row.text("version")?,
                version_number: row
                    .count("version_number")?
                    .and_then(|number| u32::try_from(number).ok())
                    .unwrap_or(0),
                version_text: row.text("version_text")?,
                in_recovery: row.try_get("in_recovery")?,
                ..base.clone()
            })
        })
        .await?;
    let sql = "SELECT system_identifier::text AS identifier FROM pg_control_system()";
    reader
        .describe("server.systemIdentifier", sql, &[], |row| {
            server.system_identifier = row.optional_text("identifier")?;
            Ok(())
        })
        .await?;
    let sql = "SELECT name, concat(setting, CASE WHEN unit ~ '^[0-9]' THEN ' x ' ELSE ' ' END || unit) AS value \
               FROM pg_settings WHERE name = ANY ($1)";
    reader
        .describe("server.settings", sql, &[&SETTINGS], |row| {
            server.settings.insert(row.text("name")?, row.text("value")?);
            Ok(())
        })
        .await?;
    // Settings of superusers are not listed for others; the rest may be unknown to the version.
    for name in ["config_file", "data_directory", "hba_file"] {
        if !server.settings.contains_key(name) {
            let field = format!("server.settings.{name}");
            reader.omit(&field, "The role of the backup may not read it (pg_read_all_settings).");
        }
    }
    Ok(server)
}

pub(super) async fn tablespaces(reader: &mut Reader<'_>) -> Result<Vec<TablespaceManifest>, Refusal> {
    let sql = "SELECT s.oid, s.spcname AS name, pg_get_userbyid(s.spcowner) AS owner, \
                      pg_tablespace_location(s.oid) AS location, s.spcoptions AS options, \
                      shobj_description(s.oid, 'pg_tablespace') AS comment, \
                      CASE WHEN has_tablespace_privilege(s.oid, 'CREATE') \
                             OR pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER') \
                           THEN pg_tablespace_size(s.oid) END AS bytes \
               FROM pg_tablespace s ORDER BY s.spcname";
    let mut tablespaces = Vec::new();
    reader
        .describe("tablespaces", sql, &[], |row| {
            tablespaces.push(TablespaceManifest {
                oid: row.try_get("oid")?,
                name: row.text("name")?,
                owner: row.text("owner")?,
                location: row.text("location")?,
                options: pairs(&row.texts("options")?),
                comment: row.optional_text("comment")?,
                bytes: row.count("bytes")?,
            });
            Ok(())
        })
        .await?;
    Ok(tablespaces)
}

/// `name=value` pairs, as the catalogs hold options.
fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pairs = texts.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
