//! From a resource to a request. Pure; what comes after reads the request and not the resource's metadata.

use jiff::Timestamp;

use super::error::Error;
use super::names::{self, RunReference};
use super::resource::RunResource;
use super::settings::Settings;
use crate::api::backup::{DeletionPolicy, LogLevel};
use crate::api::job::JobSettings;
use crate::api::status::Phase;
use crate::plan::Run;

/// Time that a Job gets which looks after what another left open. Seconds.
const FOLLOW_UP_DEADLINE_SECONDS: u32 = 900;

/// What a resource asks for, and how far it is.
#[derive(Clone, Debug)]
pub struct Request {
    /// The resource.
    pub reference: RunReference,
    /// Generation of its spec.
    pub generation: i64,
    /// Its creation.
    pub created: Timestamp,
    /// How its Jobs are made.
    pub job: JobSettings,
    /// Verbosity of the agent's log.
    pub log_level: LogLevel,
    /// Shows the steps and changes nothing.
    pub dry_run: bool,
    /// Whether the artefact goes with the resource.
    pub deletes_artifact: bool,
    /// Name of the Job that the spec asks for.
    pub job_name: String,
    /// Longest time of the run, in seconds.
    deadline_seconds: u32,
}

/// Reads a resource.
pub fn validate<R: RunResource>(resource: &R, settings: &Settings) -> Result<Request, Error> {
    let reference = RunReference::of(resource);
    let object = || format!("{} {}", names::kind(R::KIND), reference.name);
    let missing = |field| Error::FieldMissing {
        object: object(),
        field,
    };
    let metadata = resource.meta();
    let job = resource.job_settings().cloned().unwrap_or_default();
    let dry_run = resource.dry_run();
    if reference.uid.is_empty() {
        return Err(missing("metadata.uid"));
    }
    Ok(Request {
        generation: metadata.generation.ok_or_else(|| missing("metadata.generation"))?,
        created: metadata
            .creation_timestamp
            .as_ref()
            .ok_or_else(|| missing("metadata.creationTimestamp"))?
            .0,
        log_level: resource.log_level(),
        dry_run,
        deletes_artifact: resource.deletion_policy() == DeletionPolicy::Delete,
        job_name: names::job(&reference.name, &reference.uid, dry_run),
        deadline_seconds: job.deadline_seconds.unwrap_or(settings.run_deadline_seconds),
        job,
        reference,
    })
}

impl Request {
    /// The run as its plan names it.
    #[must_use]
    pub fn run(&self) -> Run {
        let RunReference {
            kind,
            namespace,
            name,
            uid,
        } = self.reference.clone();
        Run {
            kind,
            namespace,
            name,
            uid,
            generation: self.generation,
            created: self.created,
            deadline_seconds: Some(self.deadline_seconds),
        }
    }

    /// The run as the plan of a Job names it that looks after what another left open.
    #[must_use]
    pub fn follow_up_run(&self) -> Run {
        Run {
            deadline_seconds: Some(FOLLOW_UP_DEADLINE_SECONDS),
            ..self.run()
        }
    }

    /// Whether nothing is left to do for a run in that phase. A dry run is left by `dryRun: false`.
    #[must_use]
    pub const fn is_settled(&self, phase: Option<Phase>) -> bool {
        match phase {
            Some(Phase::Planned) => self.dry_run,
            Some(phase) => phase.is_terminal(),
            None => false,
        }
    }
}
