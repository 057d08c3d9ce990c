//! The steps of a backup as sentences.

use super::{ChunkSteps, DatabaseSteps, Steps, names, refusals};
use crate::api::backup::{Compression, CompressionMethod, ForeignCredentials, RolePasswords};
use crate::api::status::{StepState, StepStatus};
use crate::plan::backup::{Choice, Sections};
use crate::plan::encryption::EncryptionPlan;

impl Steps {
    /// The steps in order, each in a sentence.
    #[must_use]
    pub fn describe(&self, state: StepState) -> Vec<StepStatus> {
        let step = |name: String, description: String| StepStatus {
            name,
            description: Some(description),
            state,
            duration_milliseconds: None,
            message: None,
        };
        let mut steps = Vec::new();
        if self.chunks.is_some() {
            steps.push(step(
                names::REPOSITORY.into(),
                "Announce the backup in the repository, and learn which chunks it has.".into(),
            ));
        }
        for database in &self.databases {
            let DatabaseSteps { name, .. } = database;
            steps.push(step(
                names::of_database(names::SNAPSHOT, name),
                format!("Lock the tables of {name:?} against changes of their definitions and export one snapshot."),
            ));
            steps.push(step(
                names::of_database(names::DUMP, name),
                format!(
                    "Store {} by pg_dump {}, {}, {}{}{}.",
                    database.describe(self.sections),
                    self.client_major,
                    describe_compression(&self.compression),
                    match self.foreign_credentials {
                        ForeignCredentials::Strip => "without credentials of user mappings and subscriptions",
                        ForeignCredentials::Keep => "with credentials of user mappings and subscriptions",
                    },
                    self.chunks.map(describe_chunks).unwrap_or_default(),
                    self.encryption.as_ref().map(describe_encryption).unwrap_or_default()
                ),
            ));
            if self.has_pre_data() {
                steps.push(step(
                    names::of_database(names::PRE_DATA, name),
                    format!("Store the first section of {name:?} as plain text."),
                ));
            }
        }
        steps.push(step(
            names::GLOBALS.into(),
            match self.role_passwords {
                RolePasswords::Keep => "Store roles with their password verifiers, and tablespaces.".into(),
                RolePasswords::Omit => "Store roles without their passwords, and tablespaces.".into(),
            },
        ));
        steps.push(step(
            names::MANIFEST.into(),
            "Check that every object is in the store, and write the manifest last.".into(),
        ));
        steps
    }
}

fn describe_encryption(EncryptionPlan { recipients }: &EncryptionPlan) -> String {
    let count = recipients.len();
    format!(", encrypted to {count} recipient{}", if count == 1 { "" } else { "s" })
}

impl DatabaseSteps {
    fn describe(&self, sections: Sections) -> String {
        let what = match sections {
            Sections::All => "definitions and rows",
            Sections::Schema => "definitions without rows",
            Sections::Data => "rows without definitions",
        };
        let mut text = format!("{what} of {:?}", self.name);
        let mut add = |what: String| {
            text.push_str(", ");
            text.push_str(&what);
        };
        match &self.schemas {
            Choice::All => {}
            Choice::Include(names) => add(format!("schemas {} alone", refusals::list(names))),
            Choice::Exclude(names) => add(format!("without schemas {}", refusals::list(names))),
        }
        match &self.tables {
            Choice::All => {}
            Choice::Include(names) => add(format!("tables {} alone", refusals::tables(names))),
            Choice::Exclude(names) => add(format!("without tables {}", refusals::tables(names))),
        }
        if !self.exclude_table_data.is_empty() {
            add(format!(
                "without rows of {}",
                refusals::tables(&self.exclude_table_data)
            ));
        }
        text
    }
}

fn describe_chunks(chunks: ChunkSteps) -> String {
    let ChunkSteps {
        parallelism,
        zstd_level,
    } = chunks;
    let sessions = if parallelism == 1 { "session" } else { "sessions" };
    format!(
        "; the rows of ordinary tables beside it as chunks, read by {parallelism} {sessions}, compressed by Zstd level \
         {zstd_level}"
    )
}

fn describe_compression(compression: &Compression) -> String {
    let Compression { method, level } = compression;
    match (method, level) {
        (CompressionMethod::None, _) => "not compressed".into(),
        (method, None) => format!("compressed by {method:?}"),
        (method, Some(level)) => format!("compressed by {method:?} level {level}"),
    }
}
