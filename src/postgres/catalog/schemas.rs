//! Schemas and extensions of a database.

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::store::manifest::{ExtensionManifest, SchemaManifest};

pub(super) async fn extensions(reader: &mut Reader<'_>) -> Result<Vec<ExtensionManifest>, Refusal> {
    let sql = "SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema, \
                      pg_get_userbyid(e.extowner) AS owner \
               FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1";
    let mut extensions = Vec::new();
    reader
        .each("extensions", sql, &[], |row| {
            extensions.push(ExtensionManifest {
                name: row.text("name")?,
                version: row.text("version")?,
                schema: row.text("schema")?,
                owner: row.text("owner")?,
            });
            Ok(())
        })
        .await?;
    Ok(extensions)
}

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<Vec<SchemaManifest>, Refusal> {
    let sql = "SELECT n.nspname AS name, pg_get_userbyid(n.nspowner) AS owner, e.extname AS extension \
               FROM pg_namespace n \
                    LEFT JOIN pg_depend d ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid \
                              AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass \
                    LEFT JOIN pg_extension e ON e.oid = d.refobjid \
               WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1";
    let mut schemas = Vec::new();
    reader
        .each("schemas", sql, &[], |row| {
            schemas.push(SchemaManifest {
                name: row.text("name")?,
                owner: row.text("owner")?,
                extension: row.optional_text("extension")?,
            });
            Ok(())
        })
        .await?;
    Ok(schemas)
}
