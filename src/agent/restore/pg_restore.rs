//! Running stock `pg_restore` for one section.

use secrecy::{ExposeSecret as _, SecretString};

use super::attempt::Attempt;
use super::failure;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::Toc;
use crate::postgres::connection::ConnectionSettings;
use crate::postgres::memory_file::MemoryFile;
use crate::postgres::program::{Program, ProgramOutput};
use crate::postgres::quote::literal;

/// Settings with which `pg_restore` runs statements (`_doSetFixedOutputState` in `pg_backup_archiver.c`), for a session of
/// ours that runs one of the archive. `standard_conforming_strings` is as the archive says.
pub(super) const SESSION: &str = "
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'idle_session_timeout');
SET check_function_bodies = false; SET xmloption = content; SET client_min_messages = warning; SET row_security = off;
SELECT pg_catalog.set_config('search_path', '', false)";

/// `pg_restore` of a section into the target database; the input is still to be given.
pub(super) fn program(attempt: &Attempt<'_>, settings: &ConnectionSettings, section: &str) -> Program {
    let mut program = Program::new(&attempt.tools, "pg_restore")
        .connect_to(settings, &attempt.target.database)
        .arg("--exit-on-error")
        // Without it, an error does not name the entry that it is about (12 to 18).
        .arg("--verbose")
        .arg(format!("--section={section}"));
    if attempt.steps.no_owner {
        program = program.arg("--no-owner");
    }
    if attempt.steps.no_privileges {
        program = program.arg("--no-privileges");
    }
    for secret in &attempt.secrets {
        // pg_restore quotes the statement that failed, so the secret as it stands in SQL must not be shown either.
        let quoted = literal(secret.expose_secret());
        let inner = quoted.trim_start_matches('E').trim_matches('\'').to_owned();
        program = program.mask(secret.clone()).mask(SecretString::from(inner));
    }
    program
}

/// Restores a section of definitions from a table of contents without data, on `jobs` connections.
pub(super) async fn definitions(
    attempt: &Attempt<'_>,
    settings: &ConnectionSettings,
    toc: &Toc,
    section: &str,
    jobs: u8,
) -> Result<(), Refusal> {
    let file = MemoryFile::new("archive", &toc.to_bytes()).map_err(|error| {
        let message = format!("No file could be made in memory for pg_restore: {error}.");
        Refusal::temporary(reasons::INTERNAL, message).hint("Give the agent more memory.")
    })?;
    let mut program = program(attempt, settings, section);
    let path = program.pass(file);
    if jobs > 1 {
        program = program.arg(format!("--jobs={jobs}"));
    }
    let running = program
        .arg(path)
        .spawn()
        .map_err(|error| error.refusal(reasons::RESTORE_FAILED))?;
    let output = running
        .wait(&attempt.context.stop)
        .await
        .map_err(|error| error.refusal(reasons::RESTORE_FAILED))?;
    require_success(attempt, &output).await
}

/// Explains a failure of `pg_restore`.
pub(super) async fn require_success(attempt: &Attempt<'_>, output: &ProgramOutput) -> Result<(), Refusal> {
    if output.is_success() {
        return Ok(());
    }
    Err(failure::explain(attempt, output).await)
}
