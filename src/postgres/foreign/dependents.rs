//! What goes with an entry that is left out, and what stands in the way.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::RangeVar;

use super::statement::Dialect;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{Text, Toc, TocEntry};

/// Adds to `dropped` what belongs to the entries in it: grants, comments, labels, rows, defaults, triggers, rules and
/// attachments. Anything else that needs one of them and is not dropped itself is a refusal that names it.
pub(super) fn take_along(toc: &Toc, mut dropped: BTreeSet<i32>) -> Result<BTreeSet<i32>, Refusal> {
    let dialect = Dialect::of(toc);
    let mut in_the_way;
    loop {
        in_the_way = Vec::new();
        let before = dropped.len();
        for entry in &toc.entries {
            if dropped.contains(&entry.dump_id) {
                continue;
            }
            let needed: Vec<_> = entry.dependencies.iter().filter(|id| dropped.contains(id)).collect();
            if needed.is_empty() {
                continue;
            }
            let needed = needed.into_iter().filter_map(|id| toc.entry(*id));
            if needed.into_iter().any(|owner| belongs(entry, owner, &dialect)) {
                dropped.insert(entry.dump_id);
            } else {
                in_the_way.push(entry.label());
            }
        }
        if dropped.len() == before {
            break;
        }
    }
    if in_the_way.is_empty() {
        return Ok(dropped);
    }
    Err(Refusal::permanent(
        reasons::FOREIGN_SERVER_IN_USE,
        format!(
            "foreign servers or tables that are to be left out are needed by {}",
            in_the_way.join(", ")
        ),
    )
    .hint("Keep or rewrite the foreign server, or restore from a backup without these objects."))
}

/// Whether an entry is a part of the object of another, so that it makes no sense without it.
fn belongs(entry: &TocEntry, owner: &TocEntry, dialect: &Dialect) -> bool {
    match entry.description.to_str() {
        Some("ACL" | "COMMENT" | "SECURITY LABEL" | "TABLE DATA" | "STATISTICS DATA" | "TABLE ATTACH") => true,
        Some("DEFAULT" | "TRIGGER" | "RULE" | "CONSTRAINT" | "CHECK CONSTRAINT" | "STATISTICS") => {
            stands_on(entry, owner, dialect)
        }
        _ => false,
    }
}

/// Whether the relation that the statement of an entry works on is the one that `owner` makes.
fn stands_on(entry: &TocEntry, owner: &TocEntry, dialect: &Dialect) -> bool {
    let Ok(definition) = dialect.parse(entry) else {
        return false;
    };
    let relation = definition.statements().next().and_then(|statement| match statement {
        NodeEnum::AlterTableStmt(alter) => alter.relation.as_ref(),
        NodeEnum::CreateTrigStmt(create) => create.relation.as_ref(),
        NodeEnum::RuleStmt(create) => create.relation.as_ref(),
        NodeEnum::CreateStatsStmt(create) => match create.relations.as_slice() {
            [only] => range(only),
            _ => None,
        },
        _ => None,
    });
    relation.is_some_and(|relation| {
        let same = |text: &Option<Text>, name: &str| text.as_ref().is_some_and(|text| *text == *name);
        same(&owner.tag, &relation.relname) && same(&owner.schema, &relation.schemaname)
    })
}

fn range(node: &pg_query::Node) -> Option<&RangeVar> {
    match node.node.as_ref()? {
        NodeEnum::RangeVar(range) => Some(range),
        _ => None,
    }
}
