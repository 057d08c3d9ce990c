//! Which tables' rows are stored as chunks, and what a COPY of each needs to know. Everything else stays with pg_dump.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::agent::backup::exporter::Exporter;
use crate::agent::backup::relations::Relation;
use crate::agent::backup::selection::Selection;
use crate::plan::Refusal;
use crate::postgres::chunking::{PgType, PgTypes, TableSize};
use crate::postgres::quote;
use crate::store::manifest::RowFormat;

/// TID range scans came with this major version; before it, a condition on `ctid` reads the whole table.
const FIRST_WITH_TID_RANGE_SCANS: u32 = 14;

/// Multiranges came with this major version.
const FIRST_WITH_MULTIRANGES: u32 = 14;

/// A `character(n)` of fewer characters has too few blanks to be worth looking for them.
const PADDED_CHARACTERS: i32 = 16;

/// What the type modifier of `character(n)` is larger by than n (`anychar_typmodin` in `varchar.c`).
const VARHDRSZ: i32 = 4;

/// A table whose rows are stored as chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent::backup) struct ChunkedTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Columns in order, generated ones left out.
    pub columns: Vec<String>,
    /// Places of the columns whose values come with blanks that need not be kept.
    pub padded: Vec<usize>,
    pub format: RowFormat,
    pub size: TableSize,
}

impl ChunkedTable {
    /// Its name as it stands in SQL.
    pub fn qualified(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }
}

/// A column that COPY reads.
struct Column {
    name: String,
    /// Its type, and what that is modified by.
    of: u32,
    modifier: i32,
}

impl Column {
    /// Whether it is a `character(n)` with room for blanks.
    fn is_padded(&self) -> bool {
        self.of == Type::BPCHAR.oid() && self.modifier >= PADDED_CHARACTERS + VARHDRSZ
    }
}

/// Reads the tables that are stored as chunks, under the snapshot of the exporter, whose locks keep them as they are.
/// `room` is the number of bytes that their names may take on pg_dump's command line: where they take more, the smallest
/// tables stay with pg_dump.
pub(super) async fn read(
    exporter: &Exporter,
    selection: &Selection<'_>,
    room: usize,
) -> Result<Vec<ChunkedTable>, Refusal> {
    let session = exporter.session();
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "reading the columns and their types", None);
    let candidates: Vec<&Relation> = exporter
        .relations
        .iter()
        .filter(|relation| selection.can_be_chunked(relation))
        .collect();
    let oids: Vec<u32> = candidates.iter().map(|relation| relation.oid).collect();
    let mut columns = columns(session, &oids).await.map_err(failed)?;
    let mut sizes = sizes(session, &oids, session.server_major()).await.map_err(failed)?;
    let types = types(session, &oids, session.server_major()).await.map_err(failed)?;
    let mut tables = Vec::new();
    for relation in candidates {
        // COPY has no list of no columns; pg_dump knows what to do then.
        let (Some(columns), Some(size)) = (columns.remove(&relation.oid), sizes.remove(&relation.oid)) else {
            continue;
        };
        let format = if columns.iter().all(|column| types.is_portable(column.of)) {
            RowFormat::Binary
        } else {
            RowFormat::Text
        };
        let padded = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.is_padded() && format == RowFormat::Binary);
        tables.push(ChunkedTable {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            padded: padded.map(|(place, _)| place).collect(),
            columns: columns.into_iter().map(|column| column.name).collect(),
            format,
            size,
        });
    }
    Ok(largest_within(tables, room))
}

fn largest_within(mut tables: Vec<ChunkedTable>, mut room: usize) -> Vec<ChunkedTable> {
    let blocks = |table: &ChunkedTable| table.size.blocks + table.size.toast_blocks;
    tables.sort_by_key(|table| std::cmp::Reverse(blocks(table)));
    let fitting = tables
        .iter()
        .take_while(|table| match room.checked_sub(argument(table).len() + 1) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        })
        .count();
    if fitting < tables.len() {
        tracing::info!(
            tables = tables.len() - fitting,
            "the smallest tables stay in the archive: pg_dump's command line takes no more names"
        );
    }
    tables.truncate(fitting);
    tables.sort_by_key(|table| table.oid);
    tables
}

/// pg_dump's option that leaves the rows of this table to the chunks.
pub(super) fn argument(table: &ChunkedTable) -> String {
    format!("--exclude-table-data={}", table.qualified())
}

/// OIDs of the tables.
pub(super) fn oids(tables: &[ChunkedTable]) -> BTreeSet<u32> {
    tables.iter().map(|table| table.oid).collect()
}

const COLUMNS: &str = "
SELECT attrelid, attname::text, atttypid, atttypmod FROM pg_attribute
WHERE attrelid = ANY ($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attrelid, attnum";

/// The columns that COPY reads, by table. A table without any is not there.
async fn columns(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, Vec<Column>>, tokio_postgres::Error> {
    let mut columns: BTreeMap<u32, Vec<Column>> = BTreeMap::new();
    for row in client.query(COLUMNS, &[&oids]).await? {
        columns.entry(row.try_get(0)?).or_default().push(Column {
            name: row.try_get(1)?,
            of: row.try_get(2)?,
            modifier: row.try_get(3)?,
        });
    }
    Ok(columns)
}

/// The size of the file now: what is added behind the snapshot is not seen, and nothing is cut off under the exporter's
/// locks. The size out of line only orders the work; the catalog's estimate needs no lock. 2 is the OID of heap
/// (`HEAP_TABLE_AM_OID`).
const SIZES: &str = "
SELECT c.oid, pg_relation_size(c.oid), coalesce(t.relpages, 0)::bigint, c.relam = 2,
    current_setting('block_size')::bigint
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = ANY ($1)";

async fn sizes(client: &Client, oids: &[u32], major: u32) -> Result<BTreeMap<u32, TableSize>, tokio_postgres::Error> {
    let read = |row: &Row| {
        let (bytes, toast): (Option<i64>, i64) = (row.try_get(1)?, row.try_get(2)?);
        let (heap, block_bytes): (bool, i64) = (row.try_get(3)?, row.try_get(4)?);
        let block_bytes = u64::try_from(block_bytes).unwrap_or_default().max(1);
        let size = TableSize {
            blocks: u64::try_from(bytes.unwrap_or_default())
                .unwrap_or_default()
                .div_ceil(block_bytes),
            toast_blocks: u64::try_from(toast).unwrap_or_default(),
            block_bytes,
            ranges: heap && major >= FIRST_WITH_TID_RANGE_SCANS,
        };
        Ok((row.try_get(0)?, size))
    };
    client.query(SIZES, &[&oids]).await?.iter().map(read).collect()
}

/// The types of the columns, and whatever those are made of.
async fn types(client: &Client, oids: &[u32], major: u32) -> Result<PgTypes, tokio_postgres::Error> {
    let range_of = if major >= FIRST_WITH_MULTIRANGES {
        "(SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid)"
    } else {
        "NULL::oid"
    };
    let parts = format!(
        "CASE WHEN t.typelem <> 0 AND EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) \
              THEN t.typelem END AS array_of, \
         coalesce(nullif(t.typbasetype, 0::oid), (SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid), \
                  {range_of}) AS made_of, \
         ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid \
               AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS attributes"
    );
    let sql = format!(
        "WITH RECURSIVE needed (oid) AS ( \
             SELECT DISTINCT a.atttypid FROM pg_attribute a \
             WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped \
             UNION \
             SELECT part.oid FROM needed \
                 CROSS JOIN LATERAL (SELECT {parts} FROM pg_type t WHERE t.oid = needed.oid) p \
                 CROSS JOIN LATERAL unnest(p.attributes || p.array_of || p.made_of) AS part (oid) \
             WHERE part.oid IS NOT NULL) \
         SELECT t.oid, t.typname::text, t.typtype::text, p.array_of, p.made_of, p.attributes, \
             (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid \
              WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' \
                  AND d.refclassid = 'pg_extension'::regclass LIMIT 1), \
             t.typsend <> 0 AND t.typreceive <> 0 \
         FROM needed JOIN pg_type t ON t.oid = needed.oid \
             CROSS JOIN LATERAL (SELECT {parts}) p"
    );
    let read = |row: &Row| {
        Ok(PgType {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            array_of: row.try_get(3)?,
            made_of: row.try_get(4)?,
            attributes: row.try_get(5)?,
            extension: row.try_get(6)?,
            has_binary: row.try_get(7)?,
        })
    };
    let rows = client.query(&sql, &[&oids]).await?;
    let types: Result<Vec<PgType>, tokio_postgres::Error> = rows.iter().map(read).collect();
    Ok(PgTypes::new(types?, major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_tables_stay_with_pg_dump_where_there_is_no_room_for_all_names() {
        let table = |oid: u32, blocks| ChunkedTable {
            oid,
            schema: "s".into(),
            name: format!("t{oid}"),
            columns: Vec::new(),
            padded: Vec::new(),
            format: RowFormat::Text,
            size: TableSize {
                blocks,
                ..TableSize::default()
            },
        };
        let tables = || vec![table(1, 5), table(2, 0), table(3, 9)];
        let one = argument(&table(1, 0)).len() + 1;
        let kept = |room| -> Vec<u32> { largest_within(tables(), room).iter().map(|table| table.oid).collect() };
        assert_eq!(kept(3 * one), [1, 2, 3]);
        assert_eq!(kept(3 * one - 1), [1, 3]);
        assert_eq!(kept(one), [3]);
        assert_eq!(kept(0), [] as [u32; 0]);
    }
}
