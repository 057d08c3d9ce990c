//! Why a reconciliation is tried again.

use std::fmt::Display;

/// A reconciliation could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request or could not be reached.
    #[error("could not {action} {object}")]
    Kubernetes {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        object: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// Somebody else wrote the object since it was read.
    #[error("{object} changed meanwhile")]
    Conflict {
        /// The object.
        object: String,
    },
    /// An object is not what the API server promises.
    #[error("{object} has no {field}")]
    FieldMissing {
        /// The object.
        object: String,
        /// The field.
        field: &'static str,
    },
    /// A value cannot be written as JSON.
    #[error("could not write {object} as JSON")]
    Json {
        /// The object.
        object: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Wraps an error of the API server; a conflict is told apart, because a retry always helps.
    pub fn kubernetes(action: &'static str, object: impl Display) -> impl FnOnce(kube::Error) -> Self {
        let object = object.to_string();
        move |source| match &source {
            kube::Error::Api(status) if status.is_conflict() && !status.is_already_exists() => {
                Self::Conflict { object }
            }
            _ => Self::Kubernetes { action, object, source },
        }
    }

    /// A static name for logs and metrics.
    #[must_use]
    pub const fn category(&self) -> Category {
        match self {
            Self::Kubernetes { .. } => Category::Kubernetes,
            Self::Conflict { .. } => Category::Conflict,
            Self::FieldMissing { .. } | Self::Json { .. } => Category::Internal,
        }
    }

    /// Why, in words: what the API server answered, or the whole chain of causes.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::Kubernetes { source, .. } => answer(source),
            Self::Json { source, .. } => source.to_string(),
            Self::Conflict { .. } | Self::FieldMissing { .. } => String::new(),
        }
    }

    /// Whether the namespace is being deleted, so that nothing can be made in it any more.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        let Self::Kubernetes {
            source: kube::Error::Api(status),
            ..
        } = self
        else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// What the API server answered where it did not allow the request: a quota, a policy, a missing right.
    #[must_use]
    pub fn denial(&self) -> Option<&str> {
        match self {
            Self::Kubernetes {
                source: kube::Error::Api(status),
                ..
            } if status.is_forbidden() => Some(&status.message),
            _ => None,
        }
    }

    /// What the API server answered where it will never take the object: 422, or 400.
    #[must_use]
    pub fn rejection(&self) -> Option<&str> {
        match self {
            Self::Kubernetes {
                source: kube::Error::Api(status),
                ..
            } if matches!(status.code, 400 | 422) => Some(&status.message),
            _ => None,
        }
    }
}

/// What the API server answered; its error would print the whole status.
#[must_use]
pub fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
pub enum Category {
    /// The API server refused or was away.
    Kubernetes,
    /// Somebody else wrote meanwhile.
    Conflict,
    /// An error of pgrescue.
    Internal,
}
