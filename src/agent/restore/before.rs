//! What a restore changes of things that an empty database has already, and how that is brought back: the schema
//! `public`, and the comments of extensions.

use tokio_postgres::Client;

use super::objects;

/// Statements that give the schema `public` and the extensions back what they have now. Grants are added to those that
/// are there: whoever runs them revokes those first.
const STATEMENTS: &str = "
SELECT format('ALTER SCHEMA public OWNER TO %I', pg_get_userbyid(nspowner)) FROM pg_namespace WHERE nspname = 'public'
UNION ALL SELECT format('COMMENT ON SCHEMA public IS %s', coalesce(quote_literal(obj_description(oid, 'pg_namespace')), 'NULL'))
    FROM pg_namespace WHERE nspname = 'public'
UNION ALL SELECT format('GRANT %s ON SCHEMA public TO %s%s', privilege_type,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable AND grantee <> nspowner THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) WHERE nspname = 'public'
UNION ALL SELECT format('COMMENT ON EXTENSION %I IS %s', extname, coalesce(quote_literal(obj_description(oid, 'pg_extension')), 'NULL'))
    FROM pg_extension
UNION ALL SELECT 'DROP SCHEMA IF EXISTS public CASCADE' WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')";

/// How to bring back what the database has now.
pub(super) async fn statements(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.query(STATEMENTS, &[]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Brings back what was there. Returns what could not be, in a few words each: on managed servers some of it was never
/// the restoring role's to change, and so has not changed either.
pub(super) async fn bring_back(client: &Client, statements: &[String]) -> Result<Vec<String>, tokio_postgres::Error> {
    let now = self::statements(client).await?;
    if now == statements {
        return Ok(Vec::new());
    }
    let revoke = "
        SELECT DISTINCT format('REVOKE ALL ON SCHEMA public FROM %s CASCADE',
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
        FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'public'";
    let revocations: Vec<String> = client.query(revoke, &[]).await?.iter().map(|row| row.get(0)).collect();
    for statement in revocations.iter().chain(statements) {
        objects::run_if_possible(client, statement).await?;
    }
    let after = self::statements(client).await?;
    let missing = statements.iter().filter(|statement| !after.contains(statement));
    Ok(missing
        .map(|statement| format!("what `{statement}` would bring back"))
        .collect())
}
