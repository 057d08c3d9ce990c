//! Binary rows become text in the temporary server: it takes them into a table of the same types and copies that out.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::ExportError;
use super::contents::{Contents, Table};
use super::definitions;
use super::scratch::ScratchServer;
use crate::agent::backup::pg_dump::NO_ENCODING;
use crate::plan::Refusal;
use crate::postgres::archive::Toc;
use crate::postgres::client_tools::ClientTools;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::wire::{WireError, WireSession};
use crate::store::manifest::Manifest;

/// Values are written as `pg_dump` lets the server write them (`setup_connection`), money by the locale that the
/// exported `COPY` reads it with. Rows come out in the order in which they went in.
const SESSION: &str = "SET search_path = pg_catalog; SET DateStyle = ISO; SET IntervalStyle = postgres; \
    SET extra_float_digits = 3; SET bytea_output = hex; SET TimeZone = 'UTC'; SET xmloption = content; \
    SET lc_monetary = 'C'; SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0; SET jit = off; \
    SET client_min_messages = warning";

/// Bytes that are handed over at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The temporary server with the types of a backup, and sessions in it.
pub(super) struct Printer {
    server: ScratchServer,
    /// Sessions that nobody uses at the moment.
    idle: Mutex<Vec<Session>>,
    /// What `pg_restore` said as it made the types.
    messages: String,
}

/// A session, and the table that its temporary table has the columns of.
struct Session {
    wire: WireSession,
    columns_of: Option<u32>,
}

impl Printer {
    /// Starts the server and makes the types.
    pub(super) async fn start(
        tools: &ClientTools,
        manifest: &Manifest,
        toc: &Toc,
        contents: &Contents<'_>,
        jobs: usize,
        stop: &CancellationToken,
    ) -> Result<Self, Refusal> {
        // A newer server reads the binary form of an older one.
        let needed = manifest.server.major();
        let programs = tools.with_server(needed).ok_or_else(|| ExportError::ServerMissing {
            tables: contents.binary().count(),
            needed,
        })?;
        let without_encoding = contents.binary().any(|table| table.rows.client_encoding == NO_ENCODING);
        let encoding = if without_encoding { NO_ENCODING } else { "UTF8" };
        let server = ScratchServer::start(programs, jobs, encoding).await?;
        let restore = tools.for_restore(manifest.tools.client_major, programs.major)?;
        let messages = definitions::restore(restore, &server, toc, contents, stop).await?;
        Ok(Self {
            server,
            idle: Mutex::default(),
            messages,
        })
    }

    /// The rows of a binary COPY stream of a table as text.
    pub(super) async fn print(&self, table: &Table<'_>, chunk: &str, stream: &[u8]) -> Result<Vec<u8>, Refusal> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.connect().await?,
        };
        if session.columns_of != Some(table.relation.oid) {
            self.make_table(&mut session, table).await?;
        }
        let printed = convert(&mut session.wire, &table.rows.client_encoding, stream).await;
        let text = printed.map_err(|source| ExportError::Conversion {
            chunk: chunk.to_owned(),
            source,
        })?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        Ok(text)
    }

    async fn connect(&self) -> Result<Session, Refusal> {
        let mut wire = WireSession::connect(self.server.settings()).await?;
        let set = wire.execute(SESSION).await;
        set.map_err(|error| error.refusal("preparing the temporary server", None))?;
        Ok(Session { wire, columns_of: None })
    }

    /// Makes the temporary table of a session anew.
    async fn make_table(&self, session: &mut Session, table: &Table<'_>) -> Result<(), ExportError> {
        let failed = |problem: String| ExportError::TypesMissing {
            table: table.name(),
            problem,
            messages: self.messages.clone(),
        };
        let mut columns = Vec::new();
        for name in &table.rows.columns {
            let column = table.relation.columns.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| failed(format!("the manifest has no column {name:?}")))?;
            columns.push(format!("{} {}", identifier(name), column.data_type));
        }
        session.columns_of = None;
        let sql = format!(
            "DROP TABLE IF EXISTS pg_temp.rows; CREATE TEMPORARY TABLE rows ({}) ON COMMIT DELETE ROWS",
            columns.join(", ")
        );
        let made = session.wire.execute(&sql).await;
        made.map_err(|error| failed(error.to_string()))?;
        session.columns_of = Some(table.relation.oid);
        Ok(())
    }
}

/// In and out within one transaction, which leaves the table empty.
async fn convert(session: &mut WireSession, encoding: &str, stream: &[u8]) -> Result<Vec<u8>, WireError> {
    let encoding = literal(encoding);
    let into = format!("BEGIN; SET LOCAL client_encoding = {encoding}; COPY pg_temp.rows FROM STDIN (FORMAT binary)");
    let mut copy = session.copy_in(&into).await?;
    for piece in stream.chunks(PIECE_BYTES) {
        copy.write(piece).await?;
    }
    copy.finish().await?;
    let mut text = Vec::new();
    let mut copy = session.copy_out("COPY pg_temp.rows TO STDOUT (FORMAT text)").await?;
    copy.read_rows(&mut text, usize::MAX).await?;
    session.execute("COMMIT").await?;
    Ok(text)
}
