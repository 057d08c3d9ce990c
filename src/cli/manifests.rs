//! Reads manifests: several documents a file, values from the environment, what they name beside them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{GROUP, PgBackup, PgRestore, VERSION};
use crate::references::manifests::{ManifestReferences, ReferenceManifestError};

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path} is not valid YAML: {problem}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What the parser says; it shows lines of the file only where no Secret stands in it.
        problem: String,
    },
    /// A variable is not set.
    #[error(
        "{path} uses ${{{variable}}}, which is not set; set it, or write ${{{variable}:-default}}, or $${{…}} for the text itself"
    )]
    VariableUnset {
        /// The file.
        path: PathBuf,
        /// The variable.
        variable: String,
    },
    /// A field is unknown, missing or of another type.
    #[error("{kind} {name:?} in {path}: {problem}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Kind of the resource.
        kind: String,
        /// Name of the resource.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A Secret or ConfigMap cannot be used.
    #[error("{path}: {source}")]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReferenceManifestError,
    },
    /// The file has nothing to run.
    #[error("{path} has no PgBackup and no PgRestore of {GROUP}/{VERSION}")]
    NothingToRun {
        /// The file.
        path: PathBuf,
    },
}

/// A resource that `pgrescue run` can run.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A backup.
    Backup(Box<PgBackup>),
    /// A restore.
    Restore(Box<PgRestore>),
}

/// What a file, and the files beside it, hold.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Resources of the file itself, in its order.
    pub resources: Vec<Resource>,
    /// Backups of the file and its folder, for restores that name them.
    pub backups: Vec<PgBackup>,
    /// Secrets and ConfigMaps of the file and its folder; those of the file win.
    pub references: ManifestReferences,
}

impl Manifests {
    /// Reads a file, and what it may need from its folder.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let mut manifests = Self::default();
        for neighbour in neighbours(path) {
            // A neighbour that is not for us, or for another day, is no reason to stop.
            if let Ok(documents) = documents(&neighbour) {
                for document in documents {
                    let _ = manifests.add_neighbour(&document, &neighbour);
                }
            }
        }
        for document in documents(path)? {
            manifests.add(&document, path)?;
        }
        if manifests.resources.is_empty() {
            return Err(ManifestError::NothingToRun { path: path.to_owned() });
        }
        Ok(manifests)
    }

    fn add(&mut self, document: &Value, path: &Path) -> Result<(), ManifestError> {
        if self.add_reference(document, path)? {
            return Ok(());
        }
        match kind_of_ours(document) {
            Some("PgBackup") => {
                let backup: PgBackup = typed(document, path)?;
                self.backups
                    .retain(|other| !same_object(&other.metadata, &backup.metadata));
                self.backups.push(backup.clone());
                self.resources.push(Resource::Backup(Box::new(backup)));
            }
            Some("PgRestore") => self.resources.push(Resource::Restore(Box::new(typed(document, path)?))),
            _ => {}
        }
        Ok(())
    }

    fn add_neighbour(&mut self, document: &Value, path: &Path) -> Result<(), ManifestError> {
        if !self.add_reference(document, path)? && kind_of_ours(document) == Some("PgBackup") {
            self.backups.push(typed(document, path)?);
        }
        Ok(())
    }

    fn add_reference(&mut self, document: &Value, path: &Path) -> Result<bool, ManifestError> {
        let error = |source| ManifestError::Reference {
            path: path.to_owned(),
            source,
        };
        self.references.add(document).map_err(error)
    }
}

fn same_object(
    one: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    other: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> bool {
    one.name == other.name && one.namespace == other.namespace
}

fn kind_of_ours(document: &Value) -> Option<&str> {
    let ours = document["apiVersion"].as_str() == Some(&format!("{GROUP}/{VERSION}"));
    ours.then(|| document["kind"].as_str()).flatten()
}

fn typed<T: DeserializeOwned>(document: &Value, path: &Path) -> Result<T, ManifestError> {
    serde_json::from_value(document.clone()).map_err(|error| ManifestError::Field {
        path: path.to_owned(),
        kind: document["kind"].as_str().unwrap_or_default().to_owned(),
        name: document["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        problem: error.to_string(),
    })
}

/// Other YAML files of the folder, in the order of their names.
fn neighbours(path: &Path) -> Vec<PathBuf> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let is_yaml = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| is_yaml(file) && file.file_name() != path.file_name())
        .collect();
    files.sort();
    files
}

fn documents(path: &Path) -> Result<Vec<Value>, ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        let place = error
            .location()
            .map(|at| format!("line {}, column {}", at.line(), at.column()));
        ManifestError::Yaml {
            path: path.to_owned(),
            problem: place.unwrap_or_else(|| "it cannot be parsed".into()),
        }
    })?;
    let unset = |variable| ManifestError::VariableUnset {
        path: path.to_owned(),
        variable,
    };
    for document in &mut documents {
        substitute_in(document, &|variable| std::env::var(variable).ok()).map_err(unset)?;
    }
    Ok(documents)
}

/// Puts values into every string of a document; the error is the variable that is not set.
fn substitute_in(value: &mut Value, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if text.contains("${") {
                *text = substitute(text, lookup)?;
            }
        }
        Value::Array(values) => {
            for value in values {
                substitute_in(value, lookup)?;
            }
        }
        Value::Object(fields) => {
            for value in fields.values_mut() {
                substitute_in(value, lookup)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

/// Replaces `${VAR}` and `${VAR:-default}`; `$${` stands for `${`. A value that is put in is not looked at again.
fn substitute(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            result.push_str(&rest[..at - 1]);
            result.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        let Some(end) = rest[at..].find('}') else { break };
        let expression = &rest[at + 2..at + end];
        let (variable, default) = match expression.split_once(":-") {
            Some((variable, default)) => (variable, Some(default)),
            None => (expression, None),
        };
        result.push_str(&rest[..at]);
        // As in a shell, `:-` also covers a variable that is set to nothing.
        let value = lookup(variable).filter(|value| default.is_none() || !value.is_empty());
        result.push_str(
            &value
                .or_else(|| default.map(str::to_owned))
                .ok_or_else(|| variable.to_owned())?,
        );
        rest = &rest[at + end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(variable: &str) -> Option<String> {
        match variable {
            "HOST" => Some("db".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_their_defaults_are_put_into_strings() {
        let substituted = |text| substitute(text, &lookup);
        assert_eq!(substituted("a ${HOST}:${PORT:-5432}").as_deref(), Ok("a db:5432"));
        assert_eq!(substituted("${EMPTY}${EMPTY:-x}").as_deref(), Ok("x"));
        assert_eq!(
            substituted("$${HOST} $HOST ${HOST").as_deref(),
            Ok("${HOST} $HOST ${HOST")
        );
        assert_eq!(substituted("${NESTED}").as_deref(), Ok("${HOST}"));
        assert_eq!(substituted("${ABSENT}"), Err("ABSENT".into()));
    }

    #[test]
    fn a_restore_finds_its_backup_and_its_secret_in_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "secret.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {host: h}\n",
        );
        write(
            "backup.yml",
            "apiVersion: pgrescue.dev/v1alpha1\nkind: PgBackup\nmetadata: {name: orders}\n\
             spec: {connection: {secretRef: {name: db}}, storage: {folder: {path: /b}}}\n",
        );
        write("broken.yaml", "a: [");
        write(
            "restore.yaml",
            "apiVersion: pgrescue.dev/v1alpha1\nkind: PgRestore\nmetadata: {name: r}\n\
             spec: {source: {backup: {name: orders}}, target: {connection: {secretRef: {name: db}}}}\n",
        );
        let manifests = Manifests::read(&folder.path().join("restore.yaml")).unwrap();
        assert_eq!(manifests.resources.len(), 1);
        assert_eq!(manifests.backups.len(), 1);
    }

    #[test]
    fn an_unknown_field_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.yaml");
        let text =
            "apiVersion: pgrescue.dev/v1alpha1\nkind: PgBackup\nmetadata: {name: orders}\nspec: {conection: {}}\n";
        std::fs::write(&path, text).unwrap();
        let error = Manifests::read(&path).unwrap_err().to_string();
        assert!(error.contains("conection"), "{error}");
    }
}
