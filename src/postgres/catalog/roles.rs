//! Roles and their memberships, from the view that everyone may read.

use super::FIRST_NORMAL_OID;
use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::store::manifest::{MembershipManifest, RoleManifest};

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<Vec<RoleManifest>, Refusal> {
    let sql = "SELECT oid, rolname AS name, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, \
                      rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil::text AS valid_until, \
                      shobj_description(oid, 'pg_authid') AS comment \
               FROM pg_roles ORDER BY rolname";
    let mut roles = Vec::new();
    reader
        .each("roles", sql, &[], |row| {
            let oid = row.try_get("oid")?;
            let name = row.text("name")?;
            roles.push(RoleManifest {
                oid,
                superuser: row.try_get("rolsuper")?,
                inherit: row.try_get("rolinherit")?,
                create_role: row.try_get("rolcreaterole")?,
                create_database: row.try_get("rolcreatedb")?,
                login: row.try_get("rolcanlogin")?,
                replication: row.try_get("rolreplication")?,
                bypass_row_level_security: row.try_get("rolbypassrls")?,
                connection_limit: row.try_get("rolconnlimit")?,
                valid_until: row.optional_text("valid_until")?,
                comment: row.optional_text("comment")?,
                built_in: oid < FIRST_NORMAL_OID && name.starts_with("pg_"),
                name,
            });
            Ok(())
        })
        .await?;
    Ok(roles)
}

pub(super) async fn memberships(reader: &mut Reader<'_>) -> Result<Vec<MembershipManifest>, Refusal> {
    // The columns of 16 and later are read by way of JSON, so that one query serves all versions.
    let sql = "SELECT r.rolname AS role, m.rolname AS member, g.rolname AS grantor, a.admin_option AS admin, \
                      (to_jsonb(a) ->> 'inherit_option')::bool AS inherit, \
                      (to_jsonb(a) ->> 'set_option')::bool AS set_option \
               FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member \
                    LEFT JOIN pg_roles g ON g.oid = a.grantor \
               ORDER BY 1, 2, 3";
    let mut memberships = Vec::new();
    reader
        .describe("memberships", sql, &[], |row| {
            memberships.push(MembershipManifest {
                role: row.text("role")?,
                member: row.text("member")?,
                grantor: row.optional_text("grantor")?,
                admin: row.try_get("admin")?,
                inherit: row.try_get("inherit")?,
                set: row.try_get("set_option")?,
            });
            Ok(())
        })
        .await?;
    Ok(memberships)
}
