//! Changes the options of a foreign table's columns.

use pg_query::protobuf::AlterTableType;
use pg_query::{Node, NodeEnum};

use super::error::ForeignError;
use super::inventory::has_column;
use super::request::Changes;
use super::statement::{Definition, change_options, option_node};
use crate::postgres::quote;

/// Lets `change` work on the options of every column that has some, and removes statements that are left without any.
pub(super) fn edit_columns(definition: &mut Definition, mut change: impl FnMut(&str, &mut Vec<Node>)) {
    definition.tree.stmts.retain_mut(|raw| {
        let Some(NodeEnum::AlterTableStmt(alter)) = raw.stmt.as_mut().and_then(|stmt| stmt.node.as_mut()) else {
            return true;
        };
        alter.cmds.retain_mut(|command| match column_of(command) {
            Some((column, options)) => {
                change(column, options);
                !options.is_empty()
            }
            None => true,
        });
        !alter.cmds.is_empty()
    });
}

fn column_of(command: &mut Node) -> Option<(&str, &mut Vec<Node>)> {
    let Some(NodeEnum::AlterTableCmd(command)) = command.node.as_mut() else {
        return None;
    };
    if command.subtype() != AlterTableType::AtAlterColumnGenericOptions {
        return None;
    }
    match command.def.as_mut()?.node.as_mut()? {
        NodeEnum::List(list) => Some((&command.name, &mut list.items)),
        _ => None,
    }
}

/// Applies changes to the options of one column; the column must exist.
pub(super) fn change_column(definition: &mut Definition, column: &str, changes: &Changes) -> Result<(), ForeignError> {
    let Some(NodeEnum::CreateForeignTableStmt(create)) = definition.statements().next() else {
        return Err(definition.unexpected());
    };
    if !has_column(create, column) {
        return Err(ForeignError::ColumnMissing {
            object: definition.object().to_owned(),
            column: column.to_owned(),
        });
    }
    let mut found = false;
    edit_columns(definition, |name, options| {
        if name == column {
            found = true;
            change_options(options, changes);
        }
    });
    if found || changes.set.is_empty() {
        return Ok(());
    }
    add_statement(definition, column, changes)
}

/// Adds the statement that `pg_dump` would have written for a column with these options.
fn add_statement(definition: &mut Definition, column: &str, changes: &Changes) -> Result<(), ForeignError> {
    let Some(NodeEnum::CreateForeignTableStmt(create)) = definition.statements().next() else {
        return Err(definition.unexpected());
    };
    let Some(relation) = create.base_stmt.as_ref().and_then(|base| base.relation.as_ref()) else {
        return Err(definition.unexpected());
    };
    let sql = format!(
        "ALTER FOREIGN TABLE ONLY {} ALTER COLUMN {} OPTIONS (x 'x')",
        quote::qualified(&relation.schemaname, &relation.relname),
        quote::identifier(column)
    );
    let mut statement = pg_query::parse(&sql, 0).map_err(|_| definition.unexpected())?.protobuf;
    for raw in &mut statement.stmts {
        if let Some(NodeEnum::AlterTableStmt(alter)) = raw.stmt.as_mut().and_then(|stmt| stmt.node.as_mut()) {
            for (_, options) in alter.cmds.iter_mut().filter_map(column_of) {
                *options = changes
                    .set
                    .iter()
                    .map(|(name, value)| option_node(name, value))
                    .collect();
            }
        }
    }
    definition.tree.stmts.append(&mut statement.stmts);
    Ok(())
}
