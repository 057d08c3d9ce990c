//! Foreign data wrappers, servers and user mappings.

use std::collections::BTreeMap;

use tokio_postgres::types::Oid;

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::postgres::foreign::{LocalUser, OptionOf, ShownOptions, is_secret};
use crate::store::manifest::{ForeignDataWrapperManifest, ForeignServerManifest, UserMappingManifest};

/// `name=value` pairs as the catalogs hold them, without values that may be a secret.
pub(super) fn shown(of: OptionOf<'_>, pairs: &[String]) -> ShownOptions {
    let pairs = pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| (name.to_owned(), (!is_secret(of, name, value)).then(|| value.to_owned())))
        .collect()
}

pub(super) async fn wrappers(reader: &mut Reader<'_>) -> Result<Vec<ForeignDataWrapperManifest>, Refusal> {
    let sql = "SELECT w.fdwname AS name, pg_get_userbyid(w.fdwowner) AS owner, w.fdwvalidator <> 0 AS has_validator, \
                      w.fdwoptions AS options, e.extname AS extension \
               FROM pg_foreign_data_wrapper w \
                    LEFT JOIN pg_depend d ON d.classid = 'pg_foreign_data_wrapper'::regclass AND d.objid = w.oid \
                              AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass \
                    LEFT JOIN pg_extension e ON e.oid = d.refobjid \
               ORDER BY 1";
    let mut wrappers = Vec::new();
    reader
        .each("foreign data wrappers", sql, &[], |row| {
            wrappers.push(ForeignDataWrapperManifest {
                name: row.text("name")?,
                owner: row.text("owner")?,
                extension: row.optional_text("extension")?,
                has_validator: row.try_get("has_validator")?,
                options: shown(OptionOf::Wrapper, &row.texts("options")?),
            });
            Ok(())
        })
        .await?;
    Ok(wrappers)
}

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<Vec<ForeignServerManifest>, Refusal> {
    let sql = "SELECT s.oid, s.srvname AS name, w.fdwname AS wrapper, pg_get_userbyid(s.srvowner) AS owner, \
                      s.srvtype AS type, s.srvversion AS version, s.srvoptions AS options, e.extname AS extension, \
                      obj_description(s.oid, 'pg_foreign_server') AS comment, \
                      (SELECT count(*) FROM pg_foreign_table t WHERE t.ftserver = s.oid) AS foreign_tables \
               FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw \
                    LEFT JOIN pg_depend d ON d.classid = 'pg_foreign_server'::regclass AND d.objid = s.oid \
                              AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass \
                    LEFT JOIN pg_extension e ON e.oid = d.refobjid \
               ORDER BY 2";
    let mut servers = Vec::new();
    reader
        .each("foreign servers", sql, &[], |row| {
            let wrapper = row.text("wrapper")?;
            let server = ForeignServerManifest {
                options: shown(OptionOf::Server(&wrapper), &row.texts("options")?),
                name: row.text("name")?,
                wrapper,
                owner: row.text("owner")?,
                server_type: row.optional_text("type")?,
                version: row.optional_text("version")?,
                extension: row.optional_text("extension")?,
                comment: row.optional_text("comment")?,
                user_mappings: Vec::new(),
                foreign_tables: row.count("foreign_tables")?.unwrap_or(0),
            };
            servers.push((row.try_get::<_, Oid>("oid")?, server));
            Ok(())
        })
        .await?;
    let mut mappings = mappings(reader).await?;
    let servers = servers.into_iter().map(|(oid, mut server)| {
        server.user_mappings = mappings.remove(&oid).unwrap_or_default();
        server
    });
    Ok(servers.collect())
}

/// Mappings by the OID of their server, from the view that everyone may read. It shows no options both where there
/// are none and where they may not be seen; `visible` repeats its condition (`system_views.sql`, `pg_user_mappings`).
async fn mappings(reader: &mut Reader<'_>) -> Result<BTreeMap<Oid, Vec<UserMappingManifest>>, Refusal> {
    let sql = "SELECT m.srvid, CASE WHEN m.umuser <> 0 THEN m.usename END AS user, m.umoptions AS options, \
                      m.umoptions IS NOT NULL \
                      OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \
                      OR (m.umuser = 0 AND pg_has_role(s.srvowner, 'USAGE')) \
                      OR (m.umuser <> 0 AND m.usename = current_user \
                          AND (pg_has_role(s.srvowner, 'USAGE') OR has_server_privilege(s.oid, 'USAGE'))) AS visible \
               FROM pg_user_mappings m JOIN pg_foreign_server s ON s.oid = m.srvid \
               ORDER BY m.srvid, m.umuser <> 0, m.usename";
    let mut mappings: BTreeMap<Oid, Vec<UserMappingManifest>> = BTreeMap::new();
    reader
        .each("user mappings", sql, &[], |row| {
            let visible: bool = row.try_get("visible")?;
            let pairs = row.texts("options")?;
            let mapping = UserMappingManifest {
                user: row.optional_text("user")?.map_or(LocalUser::Public, LocalUser::Role),
                options: visible.then(|| shown(OptionOf::UserMapping, &pairs)),
            };
            mappings.entry(row.try_get("srvid")?).or_default().push(mapping);
            Ok(())
        })
        .await?;
    Ok(mappings)
}
