//! `pgrescue snapshots | check | stats | prune`: what a storage holds, whether it is whole, and what may go.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::repository_text as text;
use super::storage::{StorageArguments, answer};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::report::{EXIT_DONE, EXIT_PERMANENT};
use crate::store::Store;
use crate::store::encryption::Identities;
use crate::store::repository::{self, CheckLevel, PruneOptions, Repository};

/// Arguments of `pgrescue check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArguments {
    #[command(flatten)]
    storage: StorageArguments,
    /// How deep: 1 looks at sizes, 2 reads and hashes every object, 3 also decodes every chunk and counts its rows.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    level: u8,
    /// File with the age identities that open encrypted backups, as age-keygen writes it; for level 3 alone. `-` is the
    /// standard input.
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
}

/// Arguments of `pgrescue prune`.
#[derive(Clone, Debug, clap::Args)]
pub struct PruneArguments {
    #[command(flatten)]
    storage: StorageArguments,
    /// How long chunks stay that no backup needs any more, from the first prune that finds them, such as `24h`.
    #[arg(long, default_value = "24h", value_parser = duration)]
    grace: Duration,
    /// Says what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(duration).map_err(|_| "a grace time is not negative".to_owned())
}

/// Prints the backups of a storage.
pub async fn snapshots(arguments: &StorageArguments) -> i32 {
    answer(arguments, async |store: Arc<dyn Store>| {
        let snapshots = repository::snapshots(&*store).await?;
        Ok((text::snapshots(&snapshots), snapshots, EXIT_DONE))
    })
    .await
}

/// Prints what the chunks of a storage take.
pub async fn stats(arguments: &StorageArguments) -> i32 {
    answer(arguments, async |store: Arc<dyn Store>| {
        let statistics = Repository::open(store).await?.statistics().await?;
        Ok((text::statistics(&statistics), statistics, EXIT_DONE))
    })
    .await
}

/// Checks the backups of a storage; damage ends with the exit code of a failure that no retry can help.
pub async fn check(arguments: &CheckArguments) -> i32 {
    let level = match arguments.level {
        1 => CheckLevel::Sizes,
        2 => CheckLevel::Hashes,
        _ => CheckLevel::Rows,
    };
    answer(&arguments.storage, async |store: Arc<dyn Store>| {
        let identities = arguments.identity_file.as_deref().map(identities).transpose()?;
        let report = repository::check(&store, level, identities).await?;
        let code = if report.damages.is_empty() {
            EXIT_DONE
        } else {
            EXIT_PERMANENT
        };
        Ok((text::check(&report), report, code))
    })
    .await
}

/// Nothing of the file is shown.
pub(super) fn identities(path: &Path) -> Result<Arc<Identities>, Refusal> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let refuse = |reason, problem: &dyn Display| {
        Refusal::permanent(reason, format!("The identity file {} {problem}.", path.display()))
            .object(path.display().to_string())
            .hint("Give the file that age-keygen wrote, as it is.")
    };
    let text = text
        .map(SecretString::from)
        .map_err(|error| refuse(reasons::IDENTITY_MISSING, &format_args!("cannot be read: {error}")))?;
    let identities = Identities::parse(&text).map_err(|error| {
        refuse(
            reasons::IDENTITY_WRONG,
            &format_args!("is no identity file of age: {error}"),
        )
    })?;
    Ok(Arc::new(identities))
}

/// Deletes chunks that no backup needs.
pub async fn prune(arguments: &PruneArguments) -> i32 {
    let options = PruneOptions {
        grace: arguments.grace,
        now: Timestamp::now(),
        silence: PruneOptions::SILENCE,
        dry_run: arguments.dry_run,
    };
    answer(&arguments.storage, async |store: Arc<dyn Store>| {
        let report = Repository::open(store).await?.prune(&options).await?;
        Ok((text::prune(&report, options.dry_run), report, EXIT_DONE))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_time_is_a_duration_that_is_not_negative() {
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(duration("-1h").is_err());
        assert!(duration("soon").is_err());
    }
}
