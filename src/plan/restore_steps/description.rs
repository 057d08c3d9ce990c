//! The steps of a restore in sentences. Pure.

use super::super::restore_findings::SubscriptionAction;
use super::super::restore_refusals as refusals;
use super::{MakeDatabase, Steps, names};
use crate::api::status::{ForeignServerAction, StepState, StepStatus};

impl Steps {
    /// The steps in order, each in a sentence.
    #[must_use]
    pub fn describe(&self, state: StepState) -> Vec<StepStatus> {
        let step = |name: &str, description: String| StepStatus {
            name: name.to_owned(),
            description: Some(description),
            state,
            duration_milliseconds: None,
            message: None,
        };
        let mut steps = Vec::new();
        if !self.roles.is_empty() {
            let roles = refusals::quoted_list(&self.roles);
            steps.push(step(names::ROLES, format!("Make the roles {roles}.")));
        }
        steps.push(step(names::DATABASE, self.describe_database()));
        steps.push(step(
            names::PRE_DATA,
            format!(
                "Restore schemas, types, tables and foreign servers{}.",
                self.describe_foreign()
            ),
        ));
        if self.has_data() {
            steps.push(step(names::DATA, self.describe_data()));
            steps.push(step(
                names::INDEXES,
                format!("Build the indexes of tables with rows on {} connections.", self.jobs),
            ));
        }
        steps.push(step(
            names::POST_DATA,
            format!(
                "Restore {} on {} connections{}.",
                if self.has_data() {
                    "constraints, triggers, policies and the other indexes"
                } else {
                    "indexes, constraints, triggers and policies"
                },
                self.jobs,
                self.describe_subscriptions()
            ),
        ));
        steps.push(step(names::ANALYZE, "Collect statistics for the planner.".into()));
        steps.push(step(
            names::VERIFY,
            "Hold row counts, indexes and constraints against the manifest.".into(),
        ));
        if self.rewritten_servers().next().is_some() {
            let servers: Vec<_> = self.rewritten_servers().map(|change| change.name.clone()).collect();
            steps.push(step(
                names::FOREIGN_SERVERS,
                format!("Connect through {}.", refusals::quoted_list(&servers)),
            ));
        }
        steps.push(step(
            names::FINISH,
            "Give the database its settings, comment and grants, and note the run in it.".into(),
        ));
        steps
    }

    fn describe_database(&self) -> String {
        match &self.make {
            MakeDatabase::Create(locale) => format!(
                "Create the database {:?} (encoding {}, provider {}, locale {:?}).",
                self.database,
                locale.encoding,
                locale.provider,
                locale.sorts_by()
            ),
            MakeDatabase::Fill(_) => format!("Take the empty database {:?}.", self.database),
        }
    }

    fn describe_data(&self) -> String {
        let of_chunks = if self.chunks == 0 {
            String::new()
        } else {
            format!(
                ", {} of them in {} chunks on {} connections",
                self.chunk_bytes, self.chunks, self.jobs
            )
        };
        format!(
            "Load {} rows of {} tables from {} stored bytes{of_chunks}.",
            self.rows,
            self.tables,
            self.archive_bytes + self.chunk_bytes
        )
    }

    fn describe_foreign(&self) -> String {
        let with = |action: ForeignServerAction| {
            let count = self.foreign_servers.iter().filter(|change| change.action == action);
            count.count()
        };
        if self.foreign_servers.is_empty() {
            return String::new();
        }
        format!(
            " ({} rewritten, {} kept, {} left out)",
            with(ForeignServerAction::Rewritten),
            with(ForeignServerAction::Kept),
            with(ForeignServerAction::Dropped)
        )
    }

    fn describe_subscriptions(&self) -> String {
        let dropped = self.subscriptions.iter();
        let dropped: Vec<_> = dropped
            .filter(|(_, action)| **action == SubscriptionAction::Dropped)
            .map(|(name, _)| name.clone())
            .collect();
        if dropped.is_empty() {
            String::new()
        } else {
            format!("; leave out the subscriptions {}", refusals::quoted_list(&dropped))
        }
    }
}
