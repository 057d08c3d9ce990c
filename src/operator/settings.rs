//! What the operator is told at its start, by flags or environment; the chart sets the environment.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::ResourceRequirements;

/// Settings of `pgrescue operator`.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Image of the agent's container.
    #[arg(long, env = "PGRESCUE_AGENT_IMAGE")]
    pub agent_image: String,
    /// Pull policy of the agent's image.
    #[arg(long, env = "PGRESCUE_AGENT_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub agent_image_pull_policy: String,
    /// Secrets with which the agent's image is pulled; they must exist in the namespace of each run.
    #[arg(long, env = "PGRESCUE_AGENT_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub agent_image_pull_secrets: Vec<String>,
    /// `ServiceAccount` of a run that names none; it must exist in the namespace of the run.
    #[arg(long, env = "PGRESCUE_AGENT_SERVICE_ACCOUNT", default_value = "default")]
    pub agent_service_account: String,
    /// Group that owns the files of Secrets and volumes in the agent's pod. Left out: the cluster assigns one (OpenShift).
    #[arg(long, env = "PGRESCUE_AGENT_FS_GROUP")]
    pub agent_fs_group: Option<i64>,
    /// Resources of the agent's container where a run names none, as JSON.
    #[arg(long, env = "PGRESCUE_AGENT_RESOURCES", value_parser = parse_resources, default_value = "{}")]
    pub agent_resources: ResourceRequirements,
    /// Longest time of a run that names none, in seconds, retries included.
    #[arg(long, env = "PGRESCUE_RUN_DEADLINE_SECONDS", default_value_t = 86_400)]
    pub run_deadline_seconds: u32,
    /// How long the Job and the pods of a finished run are kept, in seconds.
    #[arg(long, env = "PGRESCUE_FINISHED_JOB_TTL_SECONDS", default_value_t = 86_400)]
    pub finished_job_ttl_seconds: i32,
    /// How long the deletion of a resource may wait for the deletion of its artefact, or of what its unfinished run made,
    /// in seconds.
    #[arg(long, env = "PGRESCUE_DELETION_DEADLINE_SECONDS", default_value_t = 600)]
    pub deletion_deadline_seconds: u32,
    /// Namespaces to work in. Left out: all.
    #[arg(long, env = "PGRESCUE_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "PGRESCUE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Works only while no other replica does.
    #[arg(long, env = "PGRESCUE_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// Namespace of the operator, where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of this replica in the Lease and in Events.
    #[arg(long, env = "POD_NAME", default_value = "pgrescue-operator")]
    pub identity: String,
}

fn parse_resources(text: &str) -> Result<ResourceRequirements, serde_json::Error> {
    serde_json::from_str(text)
}
