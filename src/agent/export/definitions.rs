//! The types of a backup in the temporary server: from the archive's table of contents, by stock `pg_restore`, and no more
//! of it than the columns of binary rows need.

use std::collections::BTreeSet;

use pg_query::protobuf::{ConstrType, ParseResult};
use pg_query::{DeparseOptions, NodeEnum, ParserOptions};
use tokio_util::sync::CancellationToken;

use super::contents::Contents;
use super::scratch::ScratchServer;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{Section, Text, Toc, TocEntry};
use crate::postgres::client_tools::ToolSet;
use crate::postgres::memory_file::MemoryFile;
use crate::postgres::program::Program;

/// Entries that say how the others are read.
const SETTINGS: [&str; 3] = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];

/// Options of `CREATE TYPE … AS RANGE` that call functions. What was stored is in its canonical form.
const RANGE_FUNCTIONS: [&str; 2] = ["canonical", "subtype_diff"];

/// Makes them. What cannot be made may not be needed: what `pg_restore` says is returned, for the case that it is.
pub(super) async fn restore(
    tools: &ToolSet,
    server: &ScratchServer,
    toc: &Toc,
    contents: &Contents<'_>,
    stop: &CancellationToken,
) -> Result<String, Refusal> {
    let tables = contents.binary().map(|table| table.relation.oid).collect();
    let types = types(toc, &tables);
    let file = MemoryFile::new("types", &types.to_bytes()).map_err(|error| {
        let message = format!("No file could be made in memory for pg_restore: {error}.");
        Refusal::temporary(reasons::INTERNAL, message).hint("Free some memory.")
    })?;
    let mut program = Program::new(tools, "pg_restore")
        .connect_to(server.settings(), ScratchServer::DATABASE)
        .args([
            "--no-owner",
            "--no-privileges",
            "--no-tablespaces",
            "--section=pre-data",
        ]);
    let path = program.pass(file);
    let ended = async { program.arg(path).spawn()?.wait(stop).await };
    let output = ended.await.map_err(|error| error.refusal(reasons::RESTORE_FAILED))?;
    Ok(output.stderr.trim().to_owned())
}

/// The table of contents with schemas, and what these tables need, themselves left out.
fn types(toc: &Toc, tables: &BTreeSet<u32>) -> Toc {
    let is_table = |entry: &&TocEntry| entry.description == "TABLE" && tables.contains(&entry.catalog_oid);
    let of_tables = toc.entries.iter().filter(is_table);
    let needed = toc.needed(of_tables.flat_map(|entry| entry.dependencies.iter().copied()));
    let mut types = toc.clone();
    types.remove(|entry| {
        let is_setting = SETTINGS.iter().any(|setting| entry.description == **setting);
        let is_needed = entry.description == "SCHEMA" || needed.contains(&entry.dump_id);
        entry.section != Section::PreData || !(is_setting || is_needed)
    });
    for entry in &mut types.entries {
        let is_type = entry.description == "DOMAIN" || entry.description == "TYPE";
        if let Some(sql) = entry.definition.as_ref().filter(|_| is_type).and_then(Text::to_str)
            && let Some(changed) = without_functions(sql)
        {
            entry.definition = Some(changed.into());
        }
    }
    types
}

/// The definition of a domain without its checks, and that of a range without its functions: rows that were stored have
/// passed them, and what they call need not be here. `None` where nothing changes.
fn without_functions(sql: &str) -> Option<String> {
    let mut tree: ParseResult = pg_query::parse(sql, ParserOptions::DEFAULT).ok()?.protobuf;
    let mut changed = false;
    for statement in tree.stmts.iter_mut().filter_map(|raw| raw.stmt.as_mut()?.node.as_mut()) {
        match statement {
            NodeEnum::CreateDomainStmt(domain) => {
                let before = domain.constraints.len();
                domain.constraints.retain(|node| {
                    !matches!(&node.node, Some(NodeEnum::Constraint(constraint))
                        if constraint.contype == ConstrType::ConstrCheck as i32)
                });
                changed |= domain.constraints.len() != before;
            }
            NodeEnum::CreateRangeStmt(range) => {
                let before = range.params.len();
                range.params.retain(|node| {
                    !matches!(&node.node, Some(NodeEnum::DefElem(option))
                        if RANGE_FUNCTIONS.contains(&option.defname.as_str()))
                });
                changed |= range.params.len() != before;
            }
            _ => {}
        }
    }
    if !changed {
        return None;
    }
    let sql = pg_query::deparse(&tree, DeparseOptions::default()).ok()?;
    Some(format!("{sql};\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::sample::{entry, toc};

    #[test]
    fn checks_and_functions_go_and_the_rest_stays() {
        let domain =
            "CREATE DOMAIN s.\"a b\" AS integer NOT NULL DEFAULT 7\n\tCONSTRAINT \"x y\" CHECK (s.f(VALUE));\n";
        assert_eq!(
            without_functions(domain).unwrap(),
            "CREATE DOMAIN s.\"a b\" AS int NOT NULL DEFAULT 7;\n"
        );
        let range = "CREATE TYPE s.r AS RANGE (\n    subtype = double precision,\n    multirange_type_name = s.m,\n    subtype_diff = float8mi\n);\n";
        let changed = without_functions(range).unwrap();
        assert!(
            !changed.contains("float8mi") && changed.contains("multirange_type_name"),
            "{changed}"
        );
        assert_eq!(without_functions("CREATE TYPE s.mood AS ENUM (\n    'sad'\n);\n"), None);
        assert_eq!(without_functions("CREATE DOMAIN"), None);
    }

    #[test]
    fn what_no_binary_column_needs_is_left_out() {
        let mut binary = entry(14, "TABLE", "t", "CREATE TABLE t ();\n").needs(&[12, 10]);
        binary.catalog_oid = 4711;
        let mut text = entry(15, "TABLE", "u", "CREATE TABLE u ();\n").needs(&[13]);
        text.catalog_oid = 4712;
        let toc = toc([
            entry(10, "SCHEMA", "s", "CREATE SCHEMA s;\n"),
            entry(11, "TYPE", "inner", "CREATE TYPE inner AS ENUM ();\n"),
            entry(12, "DOMAIN", "outer", "CREATE DOMAIN outer AS inner;\n").needs(&[11]),
            entry(13, "TYPE", "other", "CREATE TYPE other AS ENUM ();\n"),
            binary,
            text,
        ]);
        let types = types(&toc, &BTreeSet::from([4711]));
        let left: Vec<_> = types.entries.iter().map(|entry| entry.dump_id).collect();
        assert_eq!(left, [1, 2, 10, 11, 12]);
    }
}
