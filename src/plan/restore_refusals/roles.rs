//! What the roles that a backup names, and the role that restores, may make impossible. Pure.

use std::collections::BTreeSet;

use super::super::refusal::Refusal;
use super::super::restore::RestorePlan;
use super::super::restore_findings::Findings;
use super::{limited, quoted_list};
use crate::api::reasons;
use crate::api::restore::Globals;
use crate::postgres::quote::identifier;

pub(in crate::plan) fn of_roles(plan: &RestorePlan, findings: &Findings, made: &BTreeSet<String>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let server = &findings.server;
    let needs = &findings.needs;
    let missing: Vec<_> = needs
        .owners
        .iter()
        .chain(needs.roles.iter().filter(|(role, _)| !needs.owners.contains_key(*role)))
        .filter(|(role, _)| !server.roles.contains_key(*role) && !made.contains(*role))
        .map(|(role, object)| format!("{role:?} ({object})"))
        .collect();
    if !missing.is_empty() {
        refusals.push(
            Refusal::permanent(
                reasons::ROLE_MISSING,
                format!("The target server does not have {}.", roles_of(&missing)),
            )
            .hint(hint_of_missing_roles(plan)),
        );
    }
    let not_ours: Vec<_> = needs
        .owners
        .iter()
        .filter(|(role, _)| server.roles.get(*role) == Some(&false))
        .map(|(role, object)| format!("{role:?} ({object})"))
        .collect();
    if !not_ours.is_empty() {
        refusals.push(
            Refusal::permanent(
                reasons::PERMISSION_DENIED,
                format!(
                    "The role {:?} may not give objects to {}.",
                    server.role,
                    roles_of(&not_ours)
                ),
            )
            .hint(format!(
                "Grant these roles to {:?}, name others in roleMapping, or set noOwner.",
                server.role
            )),
        );
    }
    if !needs.other_grantors.is_empty() && !server.superuser {
        let message = format!(
            "The backup has grants that another role than the owner made, which only a superuser can repeat: {}.",
            limited(&needs.other_grantors)
        );
        refusals.push(
            Refusal::permanent(reasons::PERMISSION_DENIED, message)
                .hint("Leave grants out with noPrivileges, or restore as a superuser."),
        );
    }
    refusals.extend(of_making_roles(findings, made));
    refusals
}

fn hint_of_missing_roles(plan: &RestorePlan) -> &'static str {
    match plan.globals {
        Globals::Skip => {
            "Create them, set globals: Missing, name others in roleMapping, or leave owners and grants out with noOwner and noPrivileges."
        }
        Globals::Missing => {
            "The backup does not describe them. Create them, name others in roleMapping, or leave owners and grants out with noOwner and noPrivileges."
        }
    }
}

fn of_making_roles(findings: &Findings, made: &BTreeSet<String>) -> Vec<Refusal> {
    let server = &findings.server;
    if made.is_empty() || server.superuser {
        return Vec::new();
    }
    if !server.create_role {
        let names: Vec<_> = made.iter().cloned().collect();
        let message = format!(
            "The role {:?} may not create roles, and globals: Missing asks for {}.",
            server.role,
            quoted_list(&names)
        );
        return vec![Refusal::permanent(reasons::PERMISSION_DENIED, message).hint(format!(
            "As a superuser: ALTER ROLE {} CREATEROLE; or create the roles yourself.",
            identifier(&server.role)
        ))];
    }
    let privileged: Vec<_> = made
        .iter()
        .filter_map(|role| {
            let known = findings.needs.known_roles.get(role)?;
            (!known.privileged.is_empty()).then(|| format!("{role:?} ({})", known.privileged.join(", ")))
        })
        .collect();
    if privileged.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "Only a superuser may make {}, and {:?} is none.",
        roles_of(&privileged),
        server.role
    );
    vec![
        Refusal::permanent(reasons::PERMISSION_DENIED, message)
            .hint("Create these roles yourself, or name others in roleMapping."),
    ]
}

fn roles_of(descriptions: &[String]) -> String {
    let noun = if descriptions.len() == 1 {
        "the role"
    } else {
        "the roles"
    };
    format!("{noun} {}", limited(descriptions))
}
