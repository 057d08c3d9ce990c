//! `pre-data.sql`: the first section in plain text, derived from the stored table of contents and so as free of
//! credentials as that is.

use super::BackupRun;
use super::text_object;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::Toc;
use crate::postgres::memory_file::MemoryFile;
use crate::postgres::program::Program;
use crate::store::{StoredObject, layout};

/// Stores the text. An archive without data is enough for it.
pub(super) async fn store(run: &BackupRun<'_>, database: &str, toc: &Toc) -> Result<StoredObject, Refusal> {
    let archive = MemoryFile::new("archive.dump", &toc.without_data().to_bytes()).map_err(|error| {
        Refusal::temporary(
            reasons::INTERNAL,
            format!("The table of contents could not be kept in memory: {error}."),
        )
        .hint("Give the agent more memory: job.resources.limits.memory.")
    })?;
    let mut program = Program::new(&run.tools, "pg_restore")
        .arg("--section=pre-data")
        .arg("--file=-")
        .pipe_stdout();
    let path = program.pass(archive);
    let program = program.arg(path);
    text_object::store(run, &layout::pre_data(&run.steps.snapshot, database), program).await
}
