//! Relations of a database.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Row;
use tokio_postgres::types::Oid;

use super::foreign_servers::shown;
use super::reader::{Columns as _, Reader};
use super::relation_parts;
use crate::plan::Refusal;
use crate::postgres::foreign::OptionOf;
use crate::store::manifest::{ForeignTableManifest, Persistence, RelationKind, RelationManifest};

/// Selects the relations that are listed, as `c`, in their schemas `n`. Configuration tables of extensions are dumped
/// even from the schemas of the system.
pub(super) const LISTED: &str = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') \
           AND (n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
                OR c.oid IN (SELECT unnest(extconfig) FROM pg_extension))";

/// Relations with a place for each OID.
pub(super) struct Relations {
    pub(super) all: Vec<RelationManifest>,
    places: HashMap<Oid, usize>,
}

impl Relations {
    pub(super) fn of(&mut self, oid: Oid) -> Option<&mut RelationManifest> {
        self.places.get(&oid).and_then(|&at| self.all.get_mut(at))
    }
}

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<Vec<RelationManifest>, Refusal> {
    let sql = format!(
        "SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, \
                pg_get_userbyid(c.relowner) AS owner, c.relpersistence::text AS persistence, \
                (SELECT spcname FROM pg_tablespace t WHERE t.oid = c.reltablespace) AS tablespace, \
                (SELECT amname FROM pg_am a WHERE a.oid = c.relam) AS access_method, \
                c.relrowsecurity, c.relforcerowsecurity, obj_description(c.oid, 'pg_class') AS comment, \
                c.reltuples::float8 AS reltuples, c.relpages::bigint AS relpages, \
                (SELECT extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid \
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e' \
                       AND d.refclassid = 'pg_extension'::regclass) AS extension, \
                f.ftoptions AS options, s.srvname AS server \
         FROM (SELECT c.*, n.nspname {LISTED}) c \
              JOIN pg_namespace n ON n.oid = c.relnamespace \
              LEFT JOIN pg_foreign_table f ON f.ftrelid = c.oid \
              LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver \
         ORDER BY n.nspname, c.relname"
    );
    let mut relations = Relations {
        all: Vec::new(),
        places: HashMap::new(),
    };
    reader
        .each("relations", &sql, &[], |row| {
            let relation = relation(row)?;
            relations.places.insert(relation.oid, relations.all.len());
            relations.all.push(relation);
            Ok(())
        })
        .await?;
    relation_parts::columns(reader, &mut relations).await?;
    relation_parts::constraints(reader, &mut relations).await?;
    relation_parts::indexes(reader, &mut relations).await?;
    relation_parts::parents(reader, &mut relations).await?;
    relation_parts::partitioning(reader, &mut relations).await?;
    relation_parts::defaults(reader, &mut relations).await?;
    relation_parts::sizes(reader, &mut relations).await?;
    relation_parts::maintenance(reader, &mut relations).await?;
    Ok(relations.all)
}

fn relation(row: &Row) -> Result<RelationManifest, tokio_postgres::Error> {
    let (tuples, pages): (f64, Option<u64>) = (row.try_get("reltuples")?, row.count("relpages")?);
    let pages = pages.unwrap_or(0);
    let server = row.optional_text("server")?;
    let table_options = row.texts("options")?;
    Ok(RelationManifest {
        oid: row.try_get("oid")?,
        schema: row.text("schema")?,
        name: row.text("name")?,
        kind: kind(&row.text("kind")?),
        owner: row.text("owner")?,
        persistence: match row.text("persistence")?.as_str() {
            "u" => Persistence::Unlogged,
            "t" => Persistence::Temporary,
            _ => Persistence::Permanent,
        },
        tablespace: row.optional_text("tablespace")?,
        access_method: row.optional_text("access_method")?,
        extension: row.optional_text("extension")?,
        row_security: row.try_get("relrowsecurity")?,
        force_row_security: row.try_get("relforcerowsecurity")?,
        comment: row.optional_text("comment")?,
        foreign_table: server.map(|server| ForeignTableManifest {
            server,
            options: shown(OptionOf::Table, &table_options),
            column_options: BTreeMap::new(),
        }),
        // Before PostgreSQL 14, zero rows on zero pages meant that nobody had counted; since then -1 does.
        estimated_rows: (tuples > 0.0 || (tuples == 0.0 && pages > 0)).then_some(tuples),
        pages,
        ..RelationManifest::default()
    })
}

fn kind(letter: &str) -> RelationKind {
    match letter {
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "S" => RelationKind::Sequence,
        "f" => RelationKind::ForeignTable,
        "c" => RelationKind::CompositeType,
        _ => RelationKind::Table,
    }
}
