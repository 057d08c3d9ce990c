//! The foreign servers of a database as it is now, or of a backup: what `pgrescue foreign-servers` prints.

use super::Context;
use super::restore::stored_definitions;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::connection::ConnectionPlan;
use crate::plan::restore::SnapshotSource;
use crate::postgres::archive::{ArchiveReader, Toc};
use crate::postgres::connection::ConnectionSettings;
use crate::postgres::foreign::{self, ForeignServer};
use crate::postgres::program::{Program, ProgramOutput};

/// The foreign servers of a stored backup.
pub async fn of_backup(source: &SnapshotSource, context: &Context) -> Result<Vec<ForeignServer>, Refusal> {
    servers(&stored_definitions(source, context).await?)
}

/// The foreign servers of a database. pg_dump is asked, so that what is printed is what a backup would hold.
pub async fn of_database(
    connection: &ConnectionPlan,
    database: Option<&str>,
    context: &Context,
) -> Result<Vec<ForeignServer>, Refusal> {
    let settings = ConnectionSettings::resolve(connection, &*context.references).await?;
    let database = database.or(settings.database()).unwrap_or(settings.user()).to_owned();
    let settings = settings.with_database(&database);
    let session = settings.connect().await?;
    let tools = context.client_tools.for_dump(session.server_major())?;
    drop(session);
    let mut program = Program::new(tools, "pg_dump")
        .connect_to(&settings, &database)
        .args(["--format=custom", "--schema-only", "--encoding=UTF8", "--compress=0"])
        .pipe_stdout()
        .spawn()
        .map_err(|error| error.refusal(reasons::DUMP_FAILED))?;
    let output = program.stdout.take();
    let read = async {
        match output {
            Some(output) => ArchiveReader::open(output).await.map(ArchiveReader::into_toc).map(Some),
            None => Ok(None),
        }
    };
    let (toc, ended) = tokio::join!(read, program.wait(&context.stop));
    // What pg_dump says of its own failure tells more than an archive that ends too soon.
    ended
        .and_then(ProgramOutput::require_success)
        .map_err(|error| error.refusal(reasons::DUMP_FAILED))?;
    match toc {
        Ok(Some(toc)) => servers(&toc),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(Refusal::permanent(
            reasons::DUMP_FAILED,
            format!("The definitions of {database:?} cannot be read: {error}."),
        )),
    }
}

fn servers(toc: &Toc) -> Result<Vec<ForeignServer>, Refusal> {
    foreign::servers(toc).map_err(Refusal::from)
}
