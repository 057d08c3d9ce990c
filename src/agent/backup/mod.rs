//! A backup: look, decide, then per database lock, export a snapshot and stream an archive; roles; the manifest last.

mod announcement;
mod artifact;
mod blockers;
mod chunks;
mod completeness;
mod contents;
mod definitions;
mod dump;
mod exporter;
mod findings;
mod globals;
mod manifest;
mod object_lock;
pub(in crate::agent) mod pg_dump;
mod pre_data;
mod relations;
mod selection;
mod text_object;
mod turn;
mod watch;

use std::sync::Arc;

use jiff::Timestamp;

pub use artifact::{clean_up, delete_artifact};

use self::artifact::{find_finished, remove_after_failure, remove_leftovers};
use self::contents::StoredContents;
use self::dump::DumpError;
use self::exporter::Exporter;
use self::findings::Found;
use self::manifest::{Contents, DatabaseContents};
use self::turn::Turn;
use super::Context;
use crate::api::status::{Artifact, FailureClass, Resolved, StepState};
use crate::api::{conditions, reasons};
use crate::plan::Refusal;
use crate::plan::backup::BackupPlan;
use crate::plan::backup_steps::{self, DatabaseSteps, Steps, names};
use crate::plan::refusal::sentence;
use crate::plan::report::{Done, Failed, Outcome, PREFLIGHT};
use crate::postgres::catalog::ServerCatalog;
use crate::postgres::client_tools::ToolSet;
use crate::postgres::connection::ConnectionSettings;
use crate::store::encryption::{self, Recipients};
use crate::store::repository::Writer;
use crate::store::{self, Store, StoreError, Upload};

/// How often a database is begun again because a change of definitions stood in the way of pg_dump.
const DUMP_ATTEMPTS: usize = 5;

/// What every step of a backup needs.
struct BackupRun<'a> {
    plan: &'a BackupPlan,
    context: &'a Context,
    steps: Steps,
    store: Arc<dyn Store>,
    /// To whom everything but the manifest is encrypted.
    recipients: Option<Recipients>,
    /// Lead to the instance that the findings are about.
    settings: ConnectionSettings,
    tools: ToolSet,
    /// Whether the session's role sees everything.
    superuser: bool,
    started: Timestamp,
}

/// Makes the backup, or shows its steps where the plan is a dry run.
pub async fn run(plan: &BackupPlan, context: &Context) -> Result<Done, Failed> {
    let prepared = tokio::select! {
        prepared = prepare(plan, context) => prepared,
        () = context.stop.cancelled() => Err(Refusal::interrupted()),
    };
    let run = prepared.map_err(|refusal| refused(context, refusal))?;
    let plan_hash = Some(run.steps.hash());
    if plan.dry_run {
        return Ok(Done {
            outcome: Outcome::Planned,
            message: format!("{} would be backed up to {}.", run.databases(), run.store.location()),
            artifact: None,
            plan_hash,
        });
    }
    let result = run.execute().await;
    match result {
        Ok((artifact, message)) => Ok(Done {
            outcome: Outcome::Succeeded,
            message,
            artifact: Some(artifact),
            plan_hash,
        }),
        Err(refusal) => {
            let step = context.reporter.current_step();
            context.reporter.step_failed(&step, refusal.message.clone());
            Err(Failed {
                refusal,
                step: Some(step),
                plan_hash,
            })
        }
    }
}

fn refused(context: &Context, refusal: Refusal) -> Failed {
    context.reporter.step_failed(PREFLIGHT, refusal.message.clone());
    context.reporter.condition(
        conditions::PREFLIGHT_PASSED,
        Some(false),
        &refusal.reason,
        refusal.message.clone(),
    );
    Failed {
        refusal,
        step: Some(PREFLIGHT.into()),
        plan_hash: None,
    }
}

/// Looks at the store and the server, and decides. Changes nothing.
async fn prepare<'a>(plan: &'a BackupPlan, context: &'a Context) -> Result<BackupRun<'a>, Refusal> {
    let started = Timestamp::now();
    let reporter = &context.reporter;
    reporter.step_started(PREFLIGHT);
    let references = context.references.as_ref();
    let settings = ConnectionSettings::resolve(&plan.connection, references).await?;
    let Found {
        findings,
        settings,
        tools,
    } = findings::gather(plan, &settings, &context.client_tools).await?;
    let steps = backup_steps::decide(plan, &findings)?;
    let recipients = steps
        .encryption
        .as_ref()
        .map(|encryption| Recipients::parse(&encryption.recipients));
    let recipients = recipients
        .transpose()
        .map_err(|error| Refusal::permanent(reasons::INVALID_SPEC, sentence(&error.to_string())))?;
    let store = store::open_for_backup(&plan.storage, references).await?;
    store.check_access(true).await?;
    if steps.chunks.is_some() {
        announcement::check_repository(&store).await?;
    }
    let tools =
        tools.ok_or_else(|| Refusal::permanent(reasons::CLIENT_TOOLS_MISSING, "No client programs were found."))?;
    for warning in &steps.warnings {
        reporter.warn(warning.clone());
    }
    reporter.resolved(Resolved {
        snapshot: Some(steps.snapshot.clone()),
        databases: findings.databases.keys().cloned().collect(),
        server_version: Some(findings.server.version.clone()),
        client_version: Some(tools.version.clone()),
        location: Some(store.location()),
        foreign_servers: Vec::new(),
    });
    let state = if plan.dry_run {
        StepState::Planned
    } else {
        StepState::Pending
    };
    reporter.plan(steps.describe(state), steps.hash());
    let contents = findings.databases.values();
    let (bytes, tables) = contents.fold((0, 0), |(bytes, tables), found| {
        (bytes + found.bytes, tables + found.tables_with_data)
    });
    reporter.expect(bytes, tables);
    let passed = "The server and the store have what the backup needs.";
    reporter.condition(conditions::PREFLIGHT_PASSED, Some(true), reasons::SUCCEEDED, passed);
    Ok(BackupRun {
        plan,
        context,
        steps,
        store,
        recipients,
        settings,
        tools,
        superuser: findings.server.superuser,
        started,
    })
}

impl BackupRun<'_> {
    /// Everything that writes. After a failure nothing of the backup is left in the store, as far as that can be had.
    async fn execute(&self) -> Result<(Artifact, String), Refusal> {
        // The turn is kept until the store is clean: a successor must not lose its objects to our clean-up.
        let turn = self.or_stopped(Turn::take(&self.settings, &self.plan.run)).await?;
        if let Some(artifact) = self.or_stopped(find_finished(self.store.as_ref(), self.plan)).await? {
            self.skip_all("An earlier attempt of this run had stored it.");
            let message = format!(
                "An earlier attempt had stored the backup; all of its objects are there. {}",
                stored_sentence(&artifact)
            );
            return Ok((artifact, message));
        }
        let result = self.back_up().await.map(|artifact| {
            let message = stored_sentence(&artifact);
            (artifact, message)
        });
        drop(turn);
        result
    }

    /// Begins an object of the snapshot, encrypted where the backup is.
    async fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        encryption::create(&*self.store, key, self.recipients.as_ref()).await
    }

    /// For work that leaves nothing behind when it is dropped.
    async fn or_stopped<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        tokio::select! {
            result = work => result,
            () = self.context.stop.cancelled() => Err(Refusal::interrupted()),
        }
    }

    async fn clean(&self, mut refusal: Refusal) -> Refusal {
        if let Err(error) = remove_after_failure(self.store.as_ref(), &self.steps.snapshot).await {
            tracing::warn!("what was stored could not be removed: {error}");
            if refusal.class != FailureClass::Interrupted {
                refusal
                    .message
                    .push_str(" Unfinished objects are left in the store, without a manifest.");
            }
        }
        refusal
    }

    async fn back_up(&self) -> Result<Artifact, Refusal> {
        let (writer, result) = match self.begin().await {
            Ok(writer) => {
                let result = self.store_all(writer.as_ref()).await;
                (writer, result)
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let result = match result {
            Ok(artifact) => Ok(artifact),
            Err(refusal) => Err(self.clean(refusal).await),
        };
        // Last, so that no prune meets a snapshot that is half removed.
        if let Some(writer) = writer {
            announcement::end(&writer).await;
        }
        result
    }

    async fn begin(&self) -> Result<Option<Arc<Writer>>, Refusal> {
        self.or_stopped(remove_leftovers(self.store.as_ref(), &self.steps.snapshot))
            .await?;
        announcement::begin(self).await
    }

    async fn store_all(&self, writer: Option<&Arc<Writer>>) -> Result<Artifact, Refusal> {
        let mut contents = Contents::default();
        for database in &self.steps.databases {
            contents
                .databases
                .push(self.back_up_database(database, writer, &mut contents.server).await?);
        }
        let reporter = &self.context.reporter;
        reporter.step_started(names::GLOBALS);
        let globals = globals::store(self).await?;
        reporter.step_done(names::GLOBALS, format!("{} bytes.", globals.size));
        contents.globals = Some(globals);
        reporter.step_started(names::MANIFEST);
        let artifact = self
            .or_stopped(manifest::commit(self, contents, writer.map(Arc::as_ref)))
            .await?;
        reporter.step_done(names::MANIFEST, format!("SHA-256 {}.", artifact.manifest_sha256));
        Ok(artifact)
    }

    async fn back_up_database(
        &self,
        database: &DatabaseSteps,
        writer: Option<&Arc<Writer>>,
        server: &mut Option<ServerCatalog>,
    ) -> Result<DatabaseContents, Refusal> {
        let settings = self.settings.with_database(&database.name);
        let mut last = None;
        for _ in 0..DUMP_ATTEMPTS {
            let exporter = Arc::new(self.export(&settings, database).await?);
            match self.dump(database, &exporter, writer, server).await {
                Ok(contents) => return Ok(contents),
                Err(DumpError::Failed(refusal)) => return Err(refusal),
                Err(DumpError::Again(refusal)) => {
                    tracing::info!(database = database.name, "begins again: {}", refusal.message);
                    last = Some(refusal);
                }
            }
        }
        Err(last.unwrap_or_else(|| exporter::blocked(None)))
    }

    async fn export(&self, settings: &ConnectionSettings, database: &DatabaseSteps) -> Result<Exporter, Refusal> {
        let reporter = &self.context.reporter;
        let step = names::of_database(names::SNAPSHOT, &database.name);
        reporter.step_started(&step);
        let exporter = self.or_stopped(Exporter::open(settings, &self.steps, database)).await?;
        reporter.step_done(
            &step,
            format!(
                "{} tables are locked; snapshot {}.",
                exporter.locked().len(),
                exporter.snapshot
            ),
        );
        Ok(exporter)
    }

    async fn dump(
        &self,
        database: &DatabaseSteps,
        exporter: &Arc<Exporter>,
        writer: Option<&Arc<Writer>>,
        server: &mut Option<ServerCatalog>,
    ) -> Result<DatabaseContents, DumpError> {
        let reporter = &self.context.reporter;
        let step = names::of_database(names::DUMP, &database.name);
        reporter.step_started(&step);
        let StoredContents { archive, rows } = contents::store(self, database, exporter, writer).await?;
        self.warn_of_messages(&archive.messages);
        let in_chunks = writer.map_or(String::new(), |_| {
            format!(" {} rows in {} chunks.", rows.rows(), rows.chunks().count())
        });
        let done = format!(
            "{} rows in {} bytes.{in_chunks}",
            archive.summary.rows(),
            archive.object.size
        );
        reporter.step_done(&step, done);
        let pre_data = if self.steps.has_pre_data() {
            let step = names::of_database(names::PRE_DATA, &database.name);
            reporter.step_started(&step);
            let object = pre_data::store(self, &database.name, &archive.toc).await?;
            reporter.step_done(&step, format!("{} bytes.", object.size));
            Some(object)
        } else {
            None
        };
        Ok(self
            .or_stopped(manifest::describe(
                reporter, exporter, database, archive, rows, pre_data, server,
            ))
            .await?)
    }

    /// What a client program had to say although it succeeded is for the reader to judge.
    fn warn_of_messages(&self, messages: &str) {
        for line in messages.lines().filter(|line| !line.trim().is_empty()) {
            self.context.reporter.warn(line.trim());
        }
    }

    fn skip_all(&self, why: &str) {
        for step in self.steps.describe(StepState::Pending) {
            self.context.reporter.step_skipped(&step.name, why);
        }
    }

    fn databases(&self) -> String {
        let names: Vec<String> = self
            .steps
            .databases
            .iter()
            .map(|database| format!("{:?}", database.name))
            .collect();
        names.join(", ")
    }
}

fn stored_sentence(artifact: &Artifact) -> String {
    let Artifact {
        snapshot: _,
        location,
        bytes,
        new_bytes,
        reused_percent: _,
        rows,
        databases,
        manifest_sha256: _,
    } = artifact;
    let new = new_bytes.unwrap_or(*bytes);
    let of_them = if new == *bytes {
        String::new()
    } else {
        format!(", of which {new} are new,")
    };
    let databases = if databases.len() == 1 {
        "1 database".into()
    } else {
        format!("{} databases", databases.len())
    };
    format!("Stored {rows} rows of {databases} in {bytes} bytes{of_them} at {location}.")
}
