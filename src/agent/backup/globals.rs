//! `globals.sql`: roles and tablespaces, from `pg_dumpall --globals-only`. They lie outside every snapshot, so they are
//! taken after the databases: a role that owns something in one of them cannot have been dropped.

use super::BackupRun;
use super::text_object;
use crate::api::backup::RolePasswords;
use crate::plan::Refusal;
use crate::postgres::connection::render_conninfo;
use crate::postgres::program::Program;
use crate::store::{StoredObject, layout};

/// Stores the statements.
pub(super) async fn store(run: &BackupRun<'_>) -> Result<StoredObject, Refusal> {
    let database = run.settings.database().unwrap_or_default();
    // pg_dumpall takes a name with `=` in it, or one that begins like a URI, for a connection string.
    let name = render_conninfo([("dbname", database)]);
    let mut program = Program::new(&run.tools, "pg_dumpall")
        .connect_to(&run.settings, database)
        .arg(format!("--database={name}"))
        .args(["--globals-only", "--encoding=UTF8"])
        .pipe_stdout();
    if run.steps.role_passwords == RolePasswords::Omit {
        program = program.arg("--no-role-passwords");
    }
    text_object::store(run, &layout::globals(&run.steps.snapshot), program).await
}
