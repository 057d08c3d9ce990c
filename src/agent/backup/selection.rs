//! Which relations of a database a backup holds: what pg_dump is asked for, and what it must then have done.

use std::collections::{BTreeMap, BTreeSet};

use super::relations::Relation;
use crate::api::backup::{TableName, UnloggedTableData};
use crate::plan::backup::{BackupPlan, Choice, Sections};
use crate::plan::backup_steps::{DatabaseSteps, Steps};
use crate::postgres::quote;

/// The choices of a backup over the relations of one moment. A partitioned table stands for its partitions.
pub(super) struct Selection<'a> {
    sections: Sections,
    unlogged: UnloggedTableData,
    schemas: &'a Choice<String>,
    tables: TableChoice,
    without_rows: BTreeSet<u32>,
}

enum TableChoice {
    All,
    Include(BTreeSet<u32>),
    Exclude(BTreeSet<u32>),
}

impl TableChoice {
    fn of(names: &Choice<TableName>, relations: &[Relation]) -> Self {
        match names {
            Choice::All => Self::All,
            Choice::Include(names) => Self::Include(with_partitions(names, relations)),
            Choice::Exclude(names) => Self::Exclude(with_partitions(names, relations)),
        }
    }
}

impl<'a> Selection<'a> {
    /// What the plan asks for, whether all of its names are there or not.
    pub fn of_plan(plan: &'a BackupPlan, relations: &[Relation]) -> Self {
        Self {
            sections: plan.sections,
            unlogged: plan.unlogged_table_data,
            schemas: &plan.schemas,
            tables: TableChoice::of(&plan.tables, relations),
            without_rows: with_partitions(&plan.exclude_table_data, relations),
        }
    }

    /// What the steps take of one database.
    pub fn of_steps(steps: &Steps, database: &'a DatabaseSteps, relations: &[Relation]) -> Self {
        Self {
            sections: steps.sections,
            unlogged: steps.unlogged_table_data,
            schemas: &database.schemas,
            tables: TableChoice::of(&database.tables, relations),
            without_rows: with_partitions(&database.exclude_table_data, relations),
        }
    }

    /// pg_dump takes extensions and what belongs to no schema only where nothing is chosen by name
    /// (pg_dump, `include_everything`).
    pub fn takes_everything(&self) -> bool {
        !matches!(self.schemas, Choice::Include(_)) && !matches!(self.tables, TableChoice::Include(_))
    }

    fn chooses(&self, relation: &Relation) -> bool {
        match &self.tables {
            TableChoice::Include(tables) => tables.contains(&relation.oid),
            TableChoice::Exclude(tables) if tables.contains(&relation.oid) => false,
            TableChoice::All | TableChoice::Exclude(_) => match self.schemas {
                Choice::All => true,
                Choice::Include(names) => names.contains(&relation.schema),
                Choice::Exclude(names) => !names.contains(&relation.schema),
            },
        }
    }

    /// Whether its definition is in the dump.
    pub fn defines(&self, relation: &Relation) -> bool {
        self.sections != Sections::Data && self.includes(relation)
    }

    /// Whether it is in the dump, by definition, rows or both.
    pub fn includes(&self, relation: &Relation) -> bool {
        !relation.of_extension && self.chooses(relation)
    }

    /// Whether the archive must hold its rows. An extension's configuration table counts as the rest does; pg_dump
    /// chooses among its rows.
    pub fn stores_rows(&self, relation: &Relation) -> bool {
        let dumped = if relation.of_extension {
            relation.configuration && self.takes_everything() && self.chooses(relation)
        } else {
            self.chooses(relation)
        };
        dumped && self.may_store_rows(relation)
    }

    /// Whether the archive may hold its rows: a configuration table that is chosen by name is pg_dump's choice.
    pub fn may_store_rows(&self, relation: &Relation) -> bool {
        relation.has_rows()
            && self.sections != Sections::Schema
            && !self.without_rows.contains(&relation.oid)
            && (!relation.unlogged || self.unlogged == UnloggedTableData::Include)
            && self.chooses(relation)
    }

    /// Whether its rows can be stored as chunks. Those of an extension's table are pg_dump's choice, and unlogged ones
    /// are few and may be gone at any time.
    pub fn can_be_chunked(&self, relation: &Relation) -> bool {
        self.stores_rows(relation) && !relation.of_extension && !relation.unlogged
    }

    /// Whether pg_dump locks it, and so must the exporter. It locks the tables of extensions too, for their grants
    /// (pg_dump, `DUMP_COMPONENTS_REQUIRING_LOCK`).
    pub fn locks(&self, relation: &Relation) -> bool {
        relation.is_table()
            && if relation.of_extension {
                self.takes_everything() || self.may_store_rows(relation)
            } else {
                self.chooses(relation)
            }
    }

    /// A sequence whose value is in the dump.
    pub fn stores_value(&self, sequence: &Relation, chosen_tables: &BTreeSet<u32>) -> bool {
        sequence.kind == "S"
            && self.sections != Sections::Schema
            && !sequence.of_extension
            && match sequence.owned_by {
                Some(table) => chosen_tables.contains(&table),
                None => self.chooses(sequence),
            }
    }

    /// pg_dump's options for the choice. Each name is a quoted pattern, which with `-E UTF8` means that name alone.
    pub fn arguments(&self, relations: &[Relation]) -> Vec<String> {
        let by_oid: BTreeMap<u32, &Relation> = relations.iter().map(|relation| (relation.oid, relation)).collect();
        let tables = |option: &str, oids: &BTreeSet<u32>| -> Vec<String> {
            let chosen = oids.iter().filter_map(|oid| by_oid.get(oid));
            chosen
                .map(|relation| format!("{option}={}", relation.qualified()))
                .collect()
        };
        let schemas = |option: &str, names: &[String]| -> Vec<String> {
            names
                .iter()
                .map(|name| format!("{option}={}", quote::identifier(name)))
                .collect()
        };
        let mut arguments = match self.schemas {
            Choice::All => Vec::new(),
            Choice::Include(names) => schemas("--schema", names),
            Choice::Exclude(names) => schemas("--exclude-schema", names),
        };
        arguments.extend(match &self.tables {
            TableChoice::All => Vec::new(),
            TableChoice::Include(oids) => tables("--table", oids),
            TableChoice::Exclude(oids) => tables("--exclude-table", oids),
        });
        if self.sections != Sections::Schema {
            arguments.extend(tables("--exclude-table-data", &self.without_rows));
        }
        arguments
    }
}

/// The relations of these names, and of partitioned ones all partitions.
fn with_partitions(names: &[TableName], relations: &[Relation]) -> BTreeSet<u32> {
    let wanted: BTreeSet<(&str, &str)> = names
        .iter()
        .map(|table| (table.schema.as_str(), table.name.as_str()))
        .collect();
    let mut partitions: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for relation in relations {
        if let Some(parent) = relation.partition_of {
            partitions.entry(parent).or_default().push(relation.oid);
        }
    }
    let mut found = BTreeSet::new();
    let of_name = |relation: &&Relation| wanted.contains(&(relation.schema.as_str(), relation.name.as_str()));
    let mut open: Vec<u32> = relations.iter().filter(of_name).map(|relation| relation.oid).collect();
    while let Some(oid) = open.pop() {
        if found.insert(oid) {
            open.extend(partitions.get(&oid).into_iter().flatten());
        }
    }
    found
}
