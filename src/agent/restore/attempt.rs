//! One attempt of a restore that has been decided: what every step needs.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::count_rows::Counts;
use super::definitions::Definitions;
use super::guard::Guard;
use super::resume::Stage;
use super::source::Source;
use super::target::Target;
use crate::agent::Context;
use crate::plan::Refusal;
use crate::plan::restore::RestorePlan;
use crate::plan::restore_steps::Steps;
use crate::postgres::client_tools::ToolSet;

/// One attempt of a restore.
pub(super) struct Attempt<'a> {
    pub plan: &'a RestorePlan,
    pub context: &'a Context,
    /// Name of the attempt, another for each time that an agent begins.
    pub name: String,
    pub source: Source,
    pub target: Target,
    pub definitions: Definitions,
    pub steps: Steps,
    pub tools: ToolSet,
    /// What no message may show.
    pub secrets: Vec<SecretString>,
    pub guard: Guard,
    /// How far the restore is, where that is noted in the target: a later attempt goes on from there.
    pub stage: Option<Stage>,
    /// Entries of the archive whose indexes the step `indexes` built, by number.
    pub built_indexes: BTreeSet<i32>,
    /// Rows of the restored tables, once they are counted.
    pub counts: Counts,
}

impl Attempt<'_> {
    /// Stops between two statements where the run was told to.
    pub(super) fn check_stop(&self) -> Result<(), Refusal> {
        if self.context.stop.is_cancelled() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }
}

/// The run was told to stop.
pub(super) fn interrupted() -> Refusal {
    use crate::api::reasons;
    use crate::api::status::FailureClass;
    let mut refusal = Refusal::temporary(reasons::INTERRUPTED, "The restore was told to stop before it was done.");
    refusal.class = FailureClass::Interrupted;
    refusal
}
