//! Definitions that no lock of the exporter holds: views, functions, types, schemas. pg_dump reads some of them as the
//! snapshot saw them and some as they are now, and rows are written by the types of now. So what the snapshot saw is
//! held against the present: once when pg_dump has read the definitions, and what rows depend on once more at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::TryStreamExt as _;
use tokio_postgres::Client;

use crate::postgres::catalog::Text;

/// Objects by catalog, OID and number within it, each with what would change with its definition. Only what is there
/// under the snapshot is compared: new objects harm nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definitions {
    objects: BTreeMap<(String, u32, i16), (i64, String)>,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that pg_dump writes definitions of.
    All,
    /// What rows are written by: an enum's label that was renamed would not load into the type of the archive.
    Rows,
}

/// Labels of enums and attributes of composite types. In rows stand the label's text and the attributes that are left.
const OF_ROWS: &str = "
SELECT 'enum', e.oid, 0::int2, hashtextextended(e.enumlabel::text, 0), concat(n.nspname, '.', t.typname), 0::oid
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname !~ '^pg_'
UNION ALL SELECT 'composite type', a.attrelid, a.attnum, hashtextextended(concat(a.atttypid, ' ', a.attisdropped), 0),
    concat(n.nspname, '.', c.relname), 0::oid
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'c' AND a.attnum > 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// A row's `xmin` changes with every change of its object. The row of a view in `pg_class` is another matter: whoever
/// grants a privilege or refreshes a materialized view changes it.
const OF_DEFINITIONS: &str = "
UNION ALL SELECT 'schema', oid, 0::int2, hashtextextended(nspname::text, 0), nspname::text, 0::oid
FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'
UNION ALL SELECT 'function', p.oid, 0::int2, p.xmin::text::int8, concat(n.nspname, '.', p.proname), 0::oid
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384 AND n.nspname !~ '^pg_'
UNION ALL SELECT 'type', t.oid, 0::int2, t.xmin::text::int8, concat(n.nspname, '.', t.typname), 0::oid
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' AND t.typcategory <> 'A'
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
UNION ALL SELECT 'operator', o.oid, 0::int2, o.xmin::text::int8, concat(n.nspname, '.', o.oprname), 0::oid
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384 AND n.nspname !~ '^pg_'
UNION ALL SELECT 'collation', l.oid, 0::int2, l.xmin::text::int8, concat(n.nspname, '.', l.collname), 0::oid
FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid >= 16384 AND n.nspname !~ '^pg_'
UNION ALL SELECT 'relation', c.oid, 0::int2, hashtextextended(concat(c.relnamespace, ' ', c.relname), 0),
    concat(n.nspname, '.', c.relname), c.oid
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND c.relkind IN ('v', 'm', 'f', 'S')
UNION ALL SELECT 'rule', w.oid, 0::int2, w.xmin::text::int8, concat(n.nspname, '.', c.relname), c.oid
FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE w.oid >= 16384";

impl Definitions {
    /// Reads what the session sees: the snapshot in the exporter's transaction, the present elsewhere. Of relations,
    /// those in `relations`.
    pub async fn read(
        client: &Client,
        extent: Extent,
        relations: &BTreeSet<u32>,
    ) -> Result<Self, tokio_postgres::Error> {
        let sql = match extent {
            Extent::All => format!("{OF_ROWS}{OF_DEFINITIONS}"),
            Extent::Rows => OF_ROWS.to_owned(),
        };
        let rows = client.query_raw(&sql, std::iter::empty::<&str>()).await?;
        let mut rows = pin!(rows);
        let mut objects = BTreeMap::new();
        while let Some(row) = rows.try_next().await? {
            let (kind, oid, number): (String, u32, i16) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (state, Text(name), relation): (i64, Text, u32) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            if relation == 0 || relations.contains(&relation) {
                objects.insert((kind, oid, number), (state, name));
            }
        }
        Ok(Self { objects })
    }

    /// The first object that is another in `now`, or gone from it, in a few words.
    pub fn first_change(&self, now: &Self) -> Option<String> {
        for (key, (state, name)) in &self.objects {
            if now.objects.get(key).map(|(state, _)| state) != Some(state) {
                let (kind, ..) = key;
                return Some(format!("the {kind} {name}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(objects: &[(&str, u32, i64)]) -> Definitions {
        let entry =
            |(kind, oid, state): &(&str, u32, i64)| (((*kind).to_owned(), *oid, 0), (*state, format!("o{oid}")));
        Definitions {
            objects: objects.iter().map(entry).collect(),
        }
    }

    #[test]
    fn what_is_gone_or_another_is_a_change_and_what_is_new_is_none() {
        let seen = definitions(&[("function", 1, 10), ("type", 1, 10), ("type", 2, 20)]);
        let now = |objects| seen.first_change(&definitions(objects));
        let same = [("function", 1, 10), ("type", 1, 10), ("type", 2, 20), ("type", 3, 30)];
        assert_eq!(now(&same), None);
        assert_eq!(now(&same[1..]).as_deref(), Some("the function o1"));
        let changed = [same[0], same[1], ("type", 2, 21)];
        assert_eq!(now(&changed).as_deref(), Some("the type o2"));
    }
}
