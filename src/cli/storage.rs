//! Which storage a command looks at: that of a manifest, or one that the arguments name.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::EXIT_USAGE;
use super::manifests::{ManifestError, Manifests, Resource};
use super::outcome::{fail, print, with_sources};
use super::run::snapshot_source;
use crate::agent::pod::stop_on_signal;
use crate::api::reasons;
use crate::api::storage::{FolderStorage, S3Storage, Storage};
use crate::plan::report::EXIT_DONE;
use crate::plan::storage::{Place, StoragePlan};
use crate::plan::{Refusal, storage};
use crate::references::manifests::ManifestReferences;
use crate::store::{self, Store};

/// Which storage, and how the answer is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct StorageArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    s3: S3Arguments,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// One of them.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// YAML file with a PgBackup, or a PgRestore and the PgBackup that it names: its storage is meant. Secrets and
    /// ConfigMaps may stand in the same file or in another file of its folder.
    #[arg(short = 'f', long = "filename")]
    file: Option<PathBuf>,
    /// Folder of a storage on a disk, or on a mounted volume.
    #[arg(long)]
    folder: Option<String>,
    /// Bucket of a storage in S3. The keys come from the AWS SDK's chain, such as `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, or web identity.
    #[arg(long)]
    bucket: Option<String>,
}

/// How the bucket is reached.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = true, requires = "bucket", conflicts_with_all = ["file", "folder"])]
struct S3Arguments {
    /// Prefix of every key.
    #[arg(long)]
    prefix: Option<String>,
    /// Region of the bucket.
    #[arg(long)]
    region: Option<String>,
    /// URL of an S3 server other than AWS.
    #[arg(long)]
    endpoint: Option<String>,
    /// Addresses the bucket in the path of the URL instead of the host name.
    #[arg(long)]
    force_path_style: bool,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl StorageArguments {
    /// The storage, and the Secrets that it may need.
    fn read(&self) -> Result<Result<(StoragePlan, ManifestReferences), Refusal>, ManifestError> {
        if let Some(file) = &self.which.file {
            let manifests = Manifests::read(file)?;
            return Ok(storage_of(&manifests).map(|plan| (plan, manifests.references)));
        }
        let (named, field) = match &self.which.bucket {
            Some(bucket) => (self.s3.storage(bucket), "--bucket"),
            None => (folder(self.which.folder.as_deref().unwrap_or_default()), "--folder"),
        };
        let plan = storage::plan(&named, Place::Local, field);
        Ok(plan.map(|plan| (plan, ManifestReferences::default())))
    }
}

impl S3Arguments {
    fn storage(&self, bucket: &str) -> Storage {
        let s3 = S3Storage {
            bucket: bucket.to_owned(),
            prefix: self.prefix.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            force_path_style: Some(self.force_path_style),
            ..S3Storage::default()
        };
        Storage {
            s3: Some(s3),
            ..Storage::default()
        }
    }
}

fn folder(path: &str) -> Storage {
    Storage {
        folder: Some(FolderStorage { path: path.to_owned() }),
        ..Storage::default()
    }
}

/// Opens the storage, asks, and prints the answer. Returns the exit code.
pub(super) async fn answer<T: Serialize>(
    arguments: &StorageArguments,
    question: impl AsyncFnOnce(Arc<dyn Store>) -> Result<(String, T, i32), Refusal>,
) -> i32 {
    let (plan, references) = match arguments.read() {
        Ok(Ok(storage)) => storage,
        Ok(Err(refusal)) => return fail(refusal),
        Err(error) => {
            eprintln!("error: {}", with_sources(&error));
            return EXIT_USAGE;
        }
    };
    let stop = stop_on_signal();
    let asked = async {
        let store = store::open(&plan, &references).await?;
        question(store).await
    };
    let result = tokio::select! {
        result = asked => result,
        () = stop.cancelled() => Err(Refusal::interrupted()),
    };
    match result {
        Ok((text, value, code)) => {
            let printed = match arguments.output {
                Format::Text => print(&text),
                Format::Json => print(&format!("{}\n", serde_json::json!(value))),
            };
            if code == EXIT_DONE { printed } else { code }
        }
        Err(refusal) => fail(refusal),
    }
}

/// The storage of the first resource of the file.
fn storage_of(manifests: &Manifests) -> Result<StoragePlan, Refusal> {
    match manifests.resources.first() {
        Some(Resource::Backup(backup)) => storage::plan(&backup.spec.storage, Place::Local, "spec.storage"),
        Some(Resource::Restore(restore)) => Ok(snapshot_source(restore, &manifests.backups)?.storage),
        None => Err(Refusal::permanent(reasons::INVALID_SPEC, "The file names no storage.")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        storage: StorageArguments,
    }

    fn plan(arguments: &str) -> Option<StoragePlan> {
        let command = Command::try_parse_from(format!("pgrescue {arguments}").trim().split(' ')).ok()?;
        Some(command.storage.read().unwrap().unwrap().0)
    }

    #[test]
    fn a_storage_is_named_in_one_way() {
        for arguments in [
            "",
            "--folder a --bucket b",
            "--bucket b -f c.yaml",
            "--folder a --prefix p",
            "--region r",
        ] {
            assert_eq!(plan(arguments), None, "{arguments}");
        }
    }

    #[test]
    fn arguments_name_the_storage_that_a_manifest_would() {
        let path = "/mnt/backups".into();
        assert_eq!(plan("--folder /mnt/backups"), Some(StoragePlan::Folder { path }));
        let named = "--bucket b --prefix a/p --region r --endpoint http://s3:7070 --force-path-style";
        let Some(StoragePlan::S3(s3)) = plan(named) else {
            panic!("no bucket");
        };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("b", "a/p"));
        assert_eq!(
            (s3.region.as_deref(), s3.endpoint.as_deref()),
            (Some("r"), Some("http://s3:7070"))
        );
        assert!(s3.force_path_style && s3.credentials_secret.is_none());
        let Some(StoragePlan::S3(s3)) = plan("--bucket b") else {
            panic!("no bucket");
        };
        assert!(!s3.force_path_style && s3.endpoint.is_none());
    }
}
