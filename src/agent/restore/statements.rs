//! Statements of the archive about the database itself, as syntax trees: its settings, comment and grants. The names of
//! database and roles are read and replaced in the tree, never in the text.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::protobuf::{
    ConstrType, GrantStmt, ObjectType, ParseResult, RoleSpec, RoleSpecType, SortByDir, SortByNulls, VariableSetKind,
    a_const,
};
use pg_query::{DeparseOptions, Node, NodeEnum, ParserOptions};

use crate::postgres::quote::{identifier, literal};

/// Statements that cannot be read or written as a tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    /// The parser does not take the text. Its message is left out: it may quote a secret.
    #[error("the statements of {object} cannot be parsed")]
    Unreadable {
        /// The object that they belong to.
        object: String,
    },
    /// The changed tree does not become the same tree again.
    #[error("the changed statements of {object} cannot be written as SQL")]
    Unwritable {
        /// The object that they belong to.
        object: String,
    },
}

/// An index as its statement names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MadeIndex {
    /// The table by schema and name.
    pub table: (String, String),
    /// Name of the index, and of the constraint.
    pub name: String,
    /// Whether it is a B-tree.
    pub b_tree: bool,
    /// Its first column, where that is sorted as ORDER BY sorts it, ascending.
    pub first_column: Option<String>,
    /// Whether a constraint makes it.
    pub constraint: bool,
}

/// Statements of one entry.
pub(super) struct Statements {
    object: String,
    tree: ParseResult,
}

impl Statements {
    /// Parses. `object` names the entry in errors.
    pub(super) fn parse(object: &str, sql: &str, standard_conforming_strings: bool) -> Result<Self, StatementError> {
        let options = if standard_conforming_strings {
            ParserOptions::DEFAULT
        } else {
            ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
        };
        let parsed = pg_query::parse(sql, options).map_err(|_| StatementError::Unreadable {
            object: object.to_owned(),
        })?;
        Ok(Self {
            object: object.to_owned(),
            tree: parsed.protobuf,
        })
    }

    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut NodeEnum> {
        self.tree
            .stmts
            .iter_mut()
            .filter_map(|raw| raw.stmt.as_mut()?.node.as_mut())
    }

    /// Every name of a role, to read or to replace it. `PUBLIC` and `CURRENT_USER` are no names.
    pub(super) fn visit_roles(&mut self, visit: &mut dyn FnMut(&mut String)) {
        for node in self.nodes_mut() {
            visit_roles(node, visit);
        }
    }

    /// Replaces roles. Returns whether any was.
    pub(super) fn map_roles(&mut self, mapping: &BTreeMap<String, String>) -> bool {
        let mut changed = false;
        self.visit_roles(&mut |role| {
            if let Some(to) = mapping.get(role) {
                changed |= to != role;
                role.clone_from(to);
            }
        });
        changed
    }

    /// Puts another database into statements about a database.
    pub(super) fn rename_database(&mut self, database: &str) {
        for node in self.nodes_mut() {
            match node {
                NodeEnum::AlterDatabaseSetStmt(alter) => database.clone_into(&mut alter.dbname),
                NodeEnum::AlterDatabaseStmt(alter) => database.clone_into(&mut alter.dbname),
                NodeEnum::AlterRoleSetStmt(alter) => database.clone_into(&mut alter.database),
                NodeEnum::CommentStmt(comment) if comment.objtype == ObjectType::ObjectDatabase as i32 => {
                    rename(comment.object.as_deref_mut(), database);
                }
                NodeEnum::SecLabelStmt(label) if label.objtype == ObjectType::ObjectDatabase as i32 => {
                    rename(label.object.as_deref_mut(), database);
                }
                NodeEnum::GrantStmt(grant) if grant.objtype == ObjectType::ObjectDatabase as i32 => {
                    grant
                        .objects
                        .iter_mut()
                        .for_each(|object| rename(Some(object), database));
                }
                _ => {}
            }
        }
    }

    /// Leaves out what a copy of a database should not take over: that it is a template, or is closed to connections.
    pub(super) fn keep_properties(&mut self) {
        self.tree.stmts.retain(|raw| {
            let node = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref());
            match node {
                Some(NodeEnum::AlterDatabaseStmt(alter)) => alter.options.iter().all(|option| {
                    matches!(&option.node, Some(NodeEnum::DefElem(option)) if option.defname == "connection_limit")
                }),
                Some(NodeEnum::UpdateStmt(_) | NodeEnum::SelectStmt(_)) | None => false,
                Some(_) => true,
            }
        });
    }

    /// Leaves out settings of roles that are not there; returns these roles.
    pub(super) fn drop_settings_of_others(&mut self, roles: &BTreeSet<String>) -> Vec<String> {
        let mut dropped = Vec::new();
        self.tree.stmts.retain(|raw| {
            let node = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref());
            let role = match node {
                Some(NodeEnum::AlterRoleSetStmt(alter)) => alter.role.as_ref().map(|role| &role.rolename),
                _ => None,
            };
            let missing = role.filter(|role| !role.is_empty() && !roles.contains(*role));
            dropped.extend(missing.cloned());
            missing.is_none()
        });
        dropped
    }

    /// Whether another role speaks some of the statements.
    pub(super) fn sets_session(&self) -> bool {
        self.tree.stmts.iter().any(|raw| {
            let node = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref());
            matches!(node, Some(NodeEnum::VariableSetStmt(set)) if set.name == "session_authorization")
        })
    }

    /// The index that the first statement makes: `CREATE INDEX`, or `ALTER TABLE … ADD CONSTRAINT` of a constraint that
    /// has one. `WITHOUT OVERLAPS` takes a GiST index.
    pub(super) fn index_made_first(&self) -> Option<MadeIndex> {
        let first = self.tree.stmts.first()?.stmt.as_ref()?.node.as_ref()?;
        let (relation, made) = match first {
            NodeEnum::IndexStmt(index) => (
                &index.relation,
                MadeIndex {
                    name: index.idxname.clone(),
                    b_tree: index.access_method == "btree",
                    first_column: index.index_params.first().and_then(sorted_column),
                    ..MadeIndex::default()
                },
            ),
            NodeEnum::AlterTableStmt(alter) => {
                let NodeEnum::AlterTableCmd(command) = alter.cmds.first()?.node.as_ref()? else {
                    return None;
                };
                let NodeEnum::Constraint(added) = command.def.as_ref()?.node.as_ref()? else {
                    return None;
                };
                let b_tree = match added.contype() {
                    ConstrType::ConstrPrimary | ConstrType::ConstrUnique => !added.without_overlaps,
                    ConstrType::ConstrExclusion => false,
                    _ => return None,
                };
                if !added.indexname.is_empty() {
                    return None;
                }
                let first_column = match added.keys.first().and_then(|key| key.node.as_ref()) {
                    Some(NodeEnum::String(name)) => Some(name.sval.clone()),
                    _ => None,
                };
                let made = MadeIndex {
                    name: added.conname.clone(),
                    b_tree,
                    first_column,
                    constraint: true,
                    ..MadeIndex::default()
                };
                (&alter.relation, made)
            }
            _ => return None,
        };
        let relation = relation.as_ref()?;
        let table = (relation.schemaname.clone(), relation.relname.clone());
        Some(MadeIndex { table, ..made })
    }

    /// Settings, which sessions have from their beginning, and everything else.
    pub(super) fn into_settings_and_rest(self) -> Result<(Vec<String>, Vec<String>), StatementError> {
        let is_setting: Vec<_> = self
            .tree
            .stmts
            .iter()
            .map(|raw| {
                let node = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref());
                matches!(
                    node,
                    Some(NodeEnum::AlterDatabaseSetStmt(_) | NodeEnum::AlterRoleSetStmt(_))
                )
            })
            .collect();
        let (settings, rest): (Vec<_>, Vec<_>) = self.to_sql()?.into_iter().zip(is_setting).partition(|(_, is)| *is);
        let texts = |pairs: Vec<(String, bool)>| pairs.into_iter().map(|(sql, _)| sql).collect();
        Ok((texts(settings), texts(rest)))
    }

    /// Each statement as SQL, without a semicolon.
    pub(super) fn to_sql(&self) -> Result<Vec<String>, StatementError> {
        let failed = || StatementError::Unwritable {
            object: self.object.clone(),
        };
        self.tree
            .stmts
            .iter()
            .map(|raw| {
                if let Some(setting) = raw.stmt.as_ref().and_then(|stmt| setting(stmt.node.as_ref()?)) {
                    return Ok(setting);
                }
                let one = ParseResult {
                    version: self.tree.version,
                    stmts: vec![raw.clone()],
                };
                let sql = pg_query::deparse(&one, DeparseOptions::default()).map_err(|_| failed())?;
                let again = pg_query::parse(&sql, ParserOptions::DEFAULT).map_err(|_| failed())?;
                // What was written must mean the same: trees are compared without positions.
                if fingerprint(&again.protobuf) == fingerprint(&one) {
                    Ok(sql)
                } else {
                    Err(failed())
                }
            })
            .collect()
    }
}

/// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`. The deparser writes values as identifiers, which
/// PostgreSQL cuts after 63 bytes; here they are literals, as `pg_dump` writes them.
fn setting(node: &NodeEnum) -> Option<String> {
    let (target, set) = match node {
        NodeEnum::AlterDatabaseSetStmt(alter) => (
            format!("DATABASE {}", identifier(&alter.dbname)),
            alter.setstmt.as_ref()?,
        ),
        NodeEnum::AlterRoleSetStmt(alter) => {
            let role = alter.role.as_ref()?;
            // "ALL" is no role: the statement is left to the deparser.
            if role.roletype != RoleSpecType::RolespecCstring as i32 {
                return None;
            }
            let (role, database) = (identifier(&role.rolename), identifier(&alter.database));
            (format!("ROLE {role} IN DATABASE {database}"), alter.setstmt.as_ref()?)
        }
        _ => return None,
    };
    if set.kind != VariableSetKind::VarSetValue as i32 {
        return None;
    }
    let values: Option<Vec<_>> = set.args.iter().map(|arg| value(arg.node.as_ref()?)).collect();
    Some(format!(
        "ALTER {target} SET {} TO {}",
        identifier(&set.name),
        values?.join(", ")
    ))
}

fn value(node: &NodeEnum) -> Option<String> {
    let NodeEnum::AConst(constant) = node else {
        return None;
    };
    match constant.val.as_ref()? {
        a_const::Val::Sval(text) => Some(literal(&text.sval)),
        a_const::Val::Ival(number) => Some(number.ival.to_string()),
        a_const::Val::Fval(number) => Some(number.fval.clone()),
        a_const::Val::Boolval(_) | a_const::Val::Bsval(_) => None,
    }
}

/// The tree without positions in the text.
fn fingerprint(tree: &ParseResult) -> serde_json::Value {
    let mut value = serde_json::to_value(tree).unwrap_or_default();
    strip_positions(&mut value);
    value
}

fn strip_positions(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for position in ["location", "arg_location", "stmt_location", "stmt_len"] {
                map.remove(position);
            }
            map.values_mut().for_each(strip_positions);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_positions),
        _ => {}
    }
}

fn rename(object: Option<&mut Node>, database: &str) {
    if let Some(NodeEnum::String(name)) = object.and_then(|node| node.node.as_mut()) {
        database.clone_into(&mut name.sval);
    }
}

fn visit_roles(node: &mut NodeEnum, visit: &mut dyn FnMut(&mut String)) {
    match node {
        NodeEnum::GrantStmt(grant) => visit_grant(grant, visit),
        NodeEnum::AlterRoleSetStmt(alter) => {
            if let Some(role) = &mut alter.role {
                visit_role(role, visit);
            }
        }
        // pg_dump puts grants of another grantor between SET SESSION AUTHORIZATION and RESET.
        NodeEnum::VariableSetStmt(set) if set.name == "session_authorization" => {
            for arg in &mut set.args {
                if let Some(NodeEnum::AConst(constant)) = &mut arg.node
                    && let Some(a_const::Val::Sval(role)) = &mut constant.val
                {
                    visit(&mut role.sval);
                }
            }
        }
        _ => {}
    }
}

fn visit_grant(grant: &mut GrantStmt, visit: &mut dyn FnMut(&mut String)) {
    visit_nodes(&mut grant.grantees, visit);
    if let Some(grantor) = &mut grant.grantor {
        visit_role(grantor, visit);
    }
}

fn visit_nodes(nodes: &mut [Node], visit: &mut dyn FnMut(&mut String)) {
    for node in nodes {
        if let Some(NodeEnum::RoleSpec(role)) = &mut node.node {
            visit_role(role, visit);
        }
    }
}

fn visit_role(role: &mut RoleSpec, visit: &mut dyn FnMut(&mut String)) {
    if role.roletype == RoleSpecType::RolespecCstring as i32 {
        visit(&mut role.rolename);
    }
}

/// The column of an element of an index that is neither an expression nor sorted in a way of its own.
fn sorted_column(element: &Node) -> Option<String> {
    let Some(NodeEnum::IndexElem(element)) = &element.node else {
        return None;
    };
    let ascending = matches!(element.ordering(), SortByDir::SortbyDefault | SortByDir::SortbyAsc);
    let nulls_last = element.nulls_ordering() != SortByNulls::SortbyNullsFirst;
    let plain = element.collation.is_empty() && element.opclass.is_empty() && !element.name.is_empty();
    (ascending && nulls_last && plain).then(|| element.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_a_database_move_to_another_one() {
        let sql = "ALTER DATABASE \"o\" SET \"fixture.note\" TO E'it''s \\\\ here';\nALTER DATABASE o SET search_path TO 'public', 'odd schema', '$user';
            ALTER DATABASE o SET app.long TO 'a value that is longer than the sixty-three bytes of an identifier of PostgreSQL';
            ALTER DATABASE o SET work_mem TO '-5';\nALTER DATABASE o SET random_page_cost TO 1.5;
            ALTER ROLE r IN DATABASE o SET statement_timeout TO '7s';\nALTER DATABASE o CONNECTION LIMIT = 40;
            COMMENT ON DATABASE o IS 'o';\nREVOKE CONNECT,TEMPORARY ON DATABASE o FROM PUBLIC;\nSET SESSION AUTHORIZATION r;\nGRANT CONNECT ON DATABASE o TO o, r;\nRESET SESSION AUTHORIZATION;";
        let mut statements = Statements::parse("x", sql, true).unwrap();
        statements.rename_database("new \"one\"");
        statements.map_roles(&[("r".to_owned(), "new \"role\"".to_owned())].into());
        insta::assert_snapshot!(statements.to_sql().unwrap().join("\n"));
    }
}
