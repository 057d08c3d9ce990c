//! Makes what a run needs: the agent's rights, the plan, the Job. Needs a client. Nothing that exists is overwritten.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::job::JobRequest;
use super::names::{AGENT_CLUSTER_ROLE, MANAGED_BY, RunReference};

/// A Job that works for a run, or why there is none.
#[derive(Clone, Debug)]
pub enum Applied {
    /// The Job, new or from before a restart of the operator.
    Job(Box<Job>),
    /// An object of that name exists that was not made for this run.
    Taken,
}

/// Makes a Job that goes with its resource.
pub async fn owned(client: &Client, request: &JobRequest<'_>) -> Result<Applied, Error> {
    grant(client, request).await?;
    let owner = request.run.owner();
    create_plan(client, request, owner.clone()).await?;
    create_job(client, request, &request.job(Some(owner))).await
}

/// Makes a Job that survives its resource; the plan goes with the Job.
pub async fn ownerless(client: &Client, request: &JobRequest<'_>) -> Result<Applied, Error> {
    grant(client, request).await?;
    let applied = create_job(client, request, &request.job(None)).await?;
    if let Applied::Job(job) = &applied
        && let Some(owner) = job.owner_ref(&())
    {
        create_plan(client, request, owner).await?;
    }
    Ok(applied)
}

async fn create_plan(client: &Client, request: &JobRequest<'_>, owner: OwnerReference) -> Result<(), Error> {
    let object = format!("ConfigMap {}", request.name);
    let config_map = request.config_map(owner).map_err(|source| Error::Json {
        object: object.clone(),
        source,
    })?;
    create(client, request.run, &config_map, &object).await.map(drop)
}

async fn create_job(client: &Client, request: &JobRequest<'_>, job: &Job) -> Result<Applied, Error> {
    let object = format!("Job {}", request.name);
    if let Some(created) = create(client, request.run, job, &object).await? {
        return Ok(Applied::Job(Box::new(created)));
    }
    // One that is gone by now is made by the next reconciliation.
    find(client, request.run, request.name)
        .await?
        .ok_or(Error::Conflict { object })
}

/// The Job of that name, if there is one.
pub async fn find(client: &Client, run: &RunReference, name: &str) -> Result<Option<Applied>, Error> {
    let found = Api::<Job>::namespaced(client.clone(), &run.namespace)
        .get_opt(name)
        .await
        .map_err(Error::kubernetes("get", format_args!("Job {name}")))?;
    Ok(found.map(|job| {
        if RunReference::from_metadata(&job.metadata).as_ref() == Some(run) {
            Applied::Job(Box::new(job))
        } else {
            Applied::Taken
        }
    }))
}

/// Lets the agent write the status of its run. The admission policy narrows that to the run of the pod.
async fn grant(client: &Client, request: &JobRequest<'_>) -> Result<(), Error> {
    let account = request
        .job
        .service_account_name
        .as_ref()
        .unwrap_or(&request.settings.agent_service_account);
    let namespace = &request.run.namespace;
    let name = format!("{AGENT_CLUSTER_ROLE}-{account}");
    let mut binding = RoleBinding {
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: AGENT_CLUSTER_ROLE.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: account.clone(),
            namespace: Some(namespace.clone()),
            api_group: None,
        }]),
        ..RoleBinding::default()
    };
    binding.metadata.name = Some(name.clone());
    binding.metadata.labels = Some([(MANAGED_BY.0.into(), MANAGED_BY.1.into())].into());
    create(client, request.run, &binding, &format!("RoleBinding {name}"))
        .await
        .map(drop)
}

/// Creates an object; `None` where one of that name exists.
async fn create<K>(client: &Client, run: &RunReference, object: &K, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &run.namespace);
    match api.create(&PostParams::default(), object).await {
        Ok(created) => {
            tracing::info!(
                namespace = run.namespace,
                run = run.name,
                "created {name} ({})",
                created.name_any()
            );
            Ok(Some(created))
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(error) => Err(Error::kubernetes("create", name)(error)),
    }
}
