//! What a database holds, in a form that two databases can be compared by,
//! whatever the order of rows, the server's version or the encoding.

use std::collections::BTreeMap;

use super::Database;
use super::postgres::literal;

/// One line per table, materialized view, sequence and the large objects:
/// its quoted name, and the count and the sum of the hashes of its rows.
///
/// The partitions of a table count as one, since a row may stand in another
/// hash partition after a restore. The schema `pgrescue`, where the
/// product notes its runs, is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(pub BTreeMap<String, String>);

/// Rows become text as the session's settings say; so say them.
const TEXT_SETTINGS: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; \
    SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
    SET lc_monetary = 'C'; SET search_path = ''; SET row_security = off; \
    SET xmloption = 'content'; SET statement_timeout = 0;";

/// Within one statement and so under one snapshot. `query_to_xml` runs the
/// count of each relation; the text of each row is hashed in UTF-8.
const CONTENT: &str = "
WITH relation AS (
    SELECT c.oid, c.relkind, c.relispopulated, format('%I.%I', n.nspname, c.relname) AS name,
        -- What holds the rows: the table itself, or the leaves that are not foreign.
        CASE WHEN c.relkind <> 'p' THEN format('SELECT (t_.*)::text AS r FROM ONLY %I.%I AS t_', n.nspname, c.relname)
        ELSE (SELECT string_agg(format('SELECT (t_.*)::text AS r FROM ONLY %I.%I AS t_', ln.nspname, l.relname), ' UNION ALL ')
              FROM pg_catalog.pg_partition_tree(c.oid) p JOIN pg_catalog.pg_class l ON l.oid = p.relid AND l.relkind = 'r'
              JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace)
        END AS rows
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'S') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgrescue')
      AND n.nspname !~ '^pg_(toast_)?temp_'
), counted AS (
    SELECT CASE relkind WHEN 'S' THEN 'sequence ' WHEN 'm' THEN 'materialized view ' ELSE 'table ' END || name AS name,
        CASE
        WHEN relkind = 'S' THEN format('SELECT last_value, is_called FROM %s', name)
        WHEN NOT relispopulated THEN 'SELECT ''not populated'' AS state'
        WHEN rows IS NULL THEN 'SELECT ''no partitions'' AS state'
        ELSE format('SELECT count(*), coalesce(sum((''x'' || left(md5(convert_to(r, ''UTF8'')), 16))::bit(64)::bigint), 0) AS hash FROM (%s) AS rows_', rows)
        END AS query
    FROM relation
    UNION ALL
    SELECT 'large objects',
        'SELECT count(*), coalesce(sum((''x'' || left(md5(oid || lo_get(oid)::text), 16))::bit(64)::bigint), 0) AS hash FROM pg_largeobject_metadata'
)
SELECT json_build_array(name,
    array_to_string(xpath('/row/*/text()', query_to_xml(query, true, true, '')), ' '))
FROM counted
";

impl Content {
    /// What differs, one line each; empty where nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self
            .0
            .keys()
            .chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| format!("{name}: {:?} and {:?}", self.0.get(name), other.0.get(name)))
            .collect()
    }

    /// Panics with what differs.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let differences = self.differences(other);
        assert!(differences.is_empty(), "content differs:\n{}", differences.join("\n"));
    }
}

/// What belongs to a database itself and stands outside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseProperties {
    pub encoding: String,
    pub collation: String,
    pub character_type: String,
    pub owner: String,
    pub comment: String,
    /// Sorted.
    pub grants: Vec<String>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`, sorted.
    pub settings: Vec<String>,
}

impl Database<'_> {
    /// Reads every row. See [`Content`].
    pub fn content(&self) -> Content {
        let lines = self.psql(&format!("{TEXT_SETTINGS}\n{CONTENT}"));
        let content = lines
            .lines()
            .map(|line| serde_json::from_str::<(String, String)>(line).expect("a name and a count"))
            .collect();
        Content(content)
    }

    pub fn properties(&self) -> DatabaseProperties {
        let sql = format!(
            "SELECT json_build_array(pg_encoding_to_char(encoding), datcollate, datctype, \
                 pg_get_userbyid(datdba), coalesce(shobj_description(oid, 'pg_database'), ''), \
                 (SELECT coalesce(json_agg(acl ORDER BY acl), '[]') FROM \
                     (SELECT unnest(coalesce(datacl, acldefault('d', datdba)))::text AS acl) a), \
                 (SELECT coalesce(json_agg(setting ORDER BY setting), '[]') FROM \
                     (SELECT CASE WHEN setrole = 0 THEN '' ELSE pg_get_userbyid(setrole) || ': ' END \
                             || unnest(setconfig) AS setting \
                      FROM pg_db_role_setting WHERE setdatabase = pg_database.oid) s)) \
             FROM pg_database WHERE datname = {}",
            literal(&self.name)
        );
        let line = self.server.psql("postgres", &sql);
        let (encoding, collation, character_type, owner, comment, grants, settings) =
            serde_json::from_str(&line).expect("the properties of a database");
        DatabaseProperties {
            encoding,
            collation,
            character_type,
            owner,
            comment,
            grants,
            settings,
        }
    }
}
