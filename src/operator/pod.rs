//! The pod of a run's Job: hardened to Pod Security `restricted`, with the plan, the Secrets and the ConfigMaps that it
//! names mounted. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec,
    SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::job::JobRequest;
use super::names::REPORT_FINALIZER;
use crate::api::backup::LogLevel;
use crate::plan::storage::StoragePlan;
use crate::plan::{Plan, ReferencedNames};
use crate::references::mounted::{CONFIG_MAPS_PATH, SECRETS_PATH};
use crate::store::volume::MOUNT_PATH;

/// Name of the agent's container.
pub const CONTAINER: &str = "agent";
const PLAN_PATH: &str = "/etc/pgrescue/plan";
/// Group and owner may read: libpq refuses keys that others may read, and the group is the pod's `fsGroup`.
const SECRET_MODE: i32 = 0o440;
/// `/tmp` is memory; it counts as the container's.
const TEMPORARY_FILES_LIMIT: &str = "64Mi";
/// What an agent that is told to stop gets to end its children and to abort its uploads. Seconds.
const STOP_SECONDS: i64 = 60;

/// Labels by which tools that deploy claim what they find: on a Job of ours they would make them prune it.
const TOOL_LABELS: [&str; 6] = [
    "argocd.argoproj.io/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "helm.sh/",
    "app.kubernetes.io/instance",
];

/// The pod template of a Job.
#[must_use]
pub fn template(request: &JobRequest<'_>) -> PodTemplateSpec {
    let ObjectMeta {
        labels, annotations, ..
    } = request.run.metadata(request.name);
    let mut metadata = ObjectMeta {
        labels,
        annotations,
        finalizers: Some(vec![REPORT_FINALIZER.into()]),
        ..ObjectMeta::default()
    };
    add_labels(&mut metadata, &request.job.labels);
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(spec(request)),
    }
}

/// Adds labels that the user asks for; ours win, and those of tools that deploy are left out.
pub fn add_labels(metadata: &mut ObjectMeta, labels: &BTreeMap<String, String>) {
    let own = metadata.labels.get_or_insert_default();
    for (key, value) in labels {
        if !TOOL_LABELS.iter().any(|prefix| key.starts_with(prefix)) {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn spec(request: &JobRequest<'_>) -> PodSpec {
    let JobRequest { job, settings, .. } = request;
    let mounts = mounts(request);
    let (volumes, volume_mounts) = mounts.into_iter().unzip();
    PodSpec {
        restart_policy: Some("Never".into()),
        service_account_name: Some(
            job.service_account_name
                .clone()
                .unwrap_or_else(|| settings.agent_service_account.clone()),
        ),
        image_pull_secrets: Some(
            settings
                .agent_image_pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect(),
        ),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(STOP_SECONDS),
        node_selector: Some(job.node_selector.clone()),
        tolerations: Some(job.tolerations.clone()),
        affinity: job.affinity.clone(),
        priority_class_name: job.priority_class_name.clone(),
        // No runAsUser: the image sets one, and OpenShift assigns its own.
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            fs_group: settings.agent_fs_group,
            fs_group_change_policy: settings.agent_fs_group.map(|_| "OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(request, volume_mounts)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn container(request: &JobRequest<'_>, volume_mounts: Vec<VolumeMount>) -> Container {
    let settings = request.settings;
    Container {
        name: CONTAINER.into(),
        image: Some(settings.agent_image.clone()),
        image_pull_policy: Some(settings.agent_image_pull_policy.clone()),
        args: Some(vec!["agent".into()]),
        env: Some(vec![
            EnvVar {
                name: "POD_NAME".into(),
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        field_path: "metadata.name".into(),
                        ..ObjectFieldSelector::default()
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            },
            EnvVar {
                name: "PGRESCUE_LOG".into(),
                value: Some(log_filter(request.log_level).into()),
                ..EnvVar::default()
            },
        ]),
        resources: Some(
            request
                .job
                .resources
                .clone()
                .unwrap_or_else(|| settings.agent_resources.clone()),
        ),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(volume_mounts),
        ..Container::default()
    }
}

const fn log_filter(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// Every volume and where it is mounted. Volumes are numbered, for a Secret's name may be too long for a volume's.
fn mounts(request: &JobRequest<'_>) -> Vec<(Volume, VolumeMount)> {
    let plan = Volume {
        name: "plan".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: request.name.to_owned(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let temporary_files = Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity(TEMPORARY_FILES_LIMIT.into())),
        }),
        ..Volume::default()
    };
    let mut mounts = vec![
        mount(plan, PLAN_PATH.into(), true),
        mount(temporary_files, "/tmp".into(), false),
    ];
    // Optional: the agent says which object is missing, and goes on when it appears.
    let ReferencedNames {
        secrets, config_maps, ..
    } = ReferencedNames::of(request.plan);
    for (number, name) in secrets.into_iter().enumerate() {
        let path = format!("{SECRETS_PATH}/{name}");
        let volume = Volume {
            name: format!("secret-{number}"),
            secret: Some(SecretVolumeSource {
                secret_name: Some(name),
                optional: Some(true),
                default_mode: Some(SECRET_MODE),
                items: None,
            }),
            ..Volume::default()
        };
        mounts.push(mount(volume, path, true));
    }
    for (number, name) in config_maps.into_iter().enumerate() {
        let path = format!("{CONFIG_MAPS_PATH}/{name}");
        let volume = Volume {
            name: format!("config-map-{number}"),
            config_map: Some(ConfigMapVolumeSource {
                name,
                optional: Some(true),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        };
        mounts.push(mount(volume, path, true));
    }
    mounts.extend(storage(request.plan));
    mounts
}

fn storage(plan: &Plan) -> Option<(Volume, VolumeMount)> {
    let (storage, read_only) = match plan {
        Plan::Backup(plan) => (&plan.storage, false),
        Plan::Restore(plan) => (&plan.source.storage, true),
        Plan::DeleteArtifact(plan) | Plan::CleanUpBackup(plan) => (&plan.storage, false),
        Plan::CleanUpRestore(_) => return None,
    };
    let StoragePlan::Volume { claim_name, .. } = storage else {
        return None;
    };
    let volume = Volume {
        name: "backups".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name.clone(),
            read_only: None,
        }),
        ..Volume::default()
    };
    Some(mount(volume, MOUNT_PATH.into(), read_only))
}

fn mount(volume: Volume, mount_path: String, read_only: bool) -> (Volume, VolumeMount) {
    let mount = VolumeMount {
        name: volume.name.clone(),
        mount_path,
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    (volume, mount)
}
