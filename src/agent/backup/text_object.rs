//! An object that is the standard output of a client program.

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::BackupRun;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::program::{Program, ProgramOutput, RunningProgram};
use crate::store::{StoredObject, Upload};

const BUFFER_BYTES: usize = 64 * 1024;

/// Runs the program and stores what it writes under `key`, if it succeeds.
pub(super) async fn store(run: &BackupRun<'_>, key: &str, program: Program) -> Result<StoredObject, Refusal> {
    let running = program.spawn().map_err(|error| error.refusal(reasons::DUMP_FAILED))?;
    let mut upload = run.create(key).await?;
    let copied = tokio::select! {
        copied = copy(running, upload.as_mut()) => copied,
        () = run.context.stop.cancelled() => Err(Refusal::interrupted()),
    };
    match copied {
        Ok(messages) => {
            run.warn_of_messages(&messages);
            Ok(upload.finish().await?)
        }
        Err(refusal) => {
            if let Err(error) = upload.abort().await {
                tracing::warn!("an upload could not be aborted: {error}");
            }
            Err(refusal)
        }
    }
}

async fn copy(mut running: RunningProgram, upload: &mut dyn Upload) -> Result<String, Refusal> {
    if let Some(mut output) = running.stdout.take() {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(BUFFER_BYTES);
            let read = output.read_buf(&mut buffer).await.map_err(|error| {
                Refusal::temporary(
                    reasons::INTERNAL,
                    format!("A client program's output could not be read: {error}."),
                )
            })?;
            if read == 0 {
                break;
            }
            upload.write(buffer.split().freeze()).await?;
        }
    }
    let output = running
        .wait(&CancellationToken::new())
        .await
        .and_then(ProgramOutput::require_success);
    Ok(output.map_err(|error| error.refusal(reasons::DUMP_FAILED))?.stderr)
}
