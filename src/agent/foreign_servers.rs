//! The foreign servers of a database as it is now, or of a backup: what `pgrescue foreign-servers` prints.

use super::Context;
use super::restore::stored_definitions;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::connection::ConnectionPlan;
use crate::plan::restore::SnapshotSource;
use crate::postgres::archive::ArchiveReader;
use crate::postgres::connection::ConnectionSettings;
use crate::postgres::foreign::{self, Inventory};
use crate::postgres::program::{Program, ProgramOutput};

/// The foreign servers of a stored backup, with the names of the options that are not in it.
pub async fn of_backup(source: &SnapshotSource, context: &Context) -> Result<Inventory, Refusal> {
    let (toc, stripped) = stored_definitions(source, context).await?;
    foreign::inventory(&toc, &stripped).map_err(Refusal::from)
}

/// The foreign servers of a database. pg_dump is asked, so that what is printed is what a backup would hold.
pub async fn of_database(
    connection: &ConnectionPlan,
    database: Option<&str>,
    context: &Context,
) -> Result<Inventory, Refusal> {
    let settings = ConnectionSettings::resolve(connection, &*context.references).await?;
    let database = database.or(settings.database()).unwrap_or(settings.user()).to_owned();
    let settings = settings.with_database(&database);
    let session = settings.connect().await?;
    let tools = context.client_tools.for_dump(session.server_major())?;
    let sees_everything = session
        .is_superuser()
        .await
        .map_err(|error| session.refusal(&error, "looking at the role of the connection", None))?;
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
        Ok(Some(toc)) if sees_everything => foreign::inventory(&toc, &[]).map_err(Refusal::from),
        // pg_dump writes a mapping whose options its role may not see as one without options.
        Ok(Some(toc)) => {
            let unknown = foreign::mappings_without_options(&toc)?;
            foreign::inventory(&toc, &unknown).map_err(Refusal::from)
        }
        Ok(None) => Ok(Inventory::default()),
        Err(error) => Err(Refusal::permanent(
            reasons::DUMP_FAILED,
            format!("The definitions of {database:?} cannot be read: {error}."),
        )),
    }
}
