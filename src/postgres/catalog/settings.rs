//! Settings of roles and databases (`ALTER ROLE … SET`, `ALTER DATABASE … SET`).

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::postgres::foreign::setting_credential;
use crate::store::manifest::{RoleSettingManifest, SettingManifest};

/// Prefixes of extensions of PostgreSQL whose settings hold no secret. Any other setting with a dot is a user's own and
/// may hold one.
const KNOWN_PREFIXES: &[&str] = &[
    "auto_explain",
    "pg_stat_statements",
    "pg_trgm",
    "plperl",
    "plpgsql",
    "pltcl",
    "postgres_fdw",
];

pub(super) async fn of_roles(reader: &mut Reader<'_>) -> Result<Vec<RoleSettingManifest>, Refusal> {
    let sql = "SELECT r.rolname AS role, d.datname AS database, s.setconfig AS settings \
               FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
                    LEFT JOIN pg_database d ON d.oid = s.setdatabase \
               ORDER BY 1, 2 NULLS FIRST";
    let mut found = Vec::new();
    reader
        .describe("roleSettings", sql, &[], |row| {
            let (role, database) = (row.text("role")?, row.optional_text("database")?);
            for SettingManifest { name, value } in row.texts("settings")?.iter().map(|text| setting(text)) {
                found.push(RoleSettingManifest {
                    role: role.clone(),
                    database: database.clone(),
                    name,
                    value,
                });
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

pub(super) async fn of_database(reader: &mut Reader<'_>) -> Result<Vec<SettingManifest>, Refusal> {
    let sql = "SELECT s.setconfig AS settings FROM pg_db_role_setting s \
                      JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database() \
               WHERE s.setrole = 0";
    let mut found = Vec::new();
    reader
        .describe("databases.settings", sql, &[], |row| {
            found.extend(row.texts("settings")?.iter().map(|text| setting(text)));
            Ok(())
        })
        .await?;
    Ok(found)
}

/// `name=value`, as `setconfig` holds it.
fn setting(text: &str) -> SettingManifest {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let of_extension = name
        .split_once('.')
        .is_some_and(|(prefix, _)| KNOWN_PREFIXES.contains(&prefix));
    let shown = of_extension || setting_credential("", name, value).is_none();
    SettingManifest {
        name: name.to_owned(),
        value: shown.then(|| value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::setting;

    #[test]
    fn a_setting_of_the_users_own_is_named_without_its_value() {
        assert_eq!(setting("search_path=a, \"b=c\"").value.as_deref(), Some("a, \"b=c\""));
        assert_eq!(setting("plpgsql.extra_warnings=all").value.as_deref(), Some("all"));
        assert_eq!(setting("app.jwt_secret=canary").value, None);
        assert_eq!(setting("app.jwt_secret=canary").name, "app.jwt_secret");
    }
}
