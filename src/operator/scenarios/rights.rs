//! The operator's rights are the calls that it makes: nothing is missing, and nothing is granted that no scenario uses.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::api_server::Call;
use super::{deletions, endings, pods, replicas, restores, runs, unfinished};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

fn granted(rules: &str) -> BTreeSet<Call> {
    let rules: Vec<Rule> = serde_saphyr::from_str(rules).unwrap();
    let mut calls = BTreeSet::new();
    for Rule {
        api_groups,
        resources,
        resource_names,
        verbs,
    } in rules
    {
        for group in &api_groups {
            for resource in &resources {
                for verb in &verbs {
                    let named = resource_names.iter().map(|name| format!("{resource}:{name}"));
                    let all = resource_names.is_empty().then(|| resource.clone());
                    calls.extend(named.chain(all).map(|resource| (verb.clone(), group.clone(), resource)));
                }
            }
        }
    }
    calls
}

#[tokio::test]
async fn the_operators_rights_are_the_calls_that_it_makes() {
    let mut made = BTreeSet::new();
    for calls in [
        runs::all().await,
        endings::all().await,
        restores::all().await,
        deletions::all().await,
        unfinished::all().await,
        pods::all().await,
        replicas::all().await,
    ] {
        made.extend(calls);
    }
    let mut granted = granted(include_str!("../../../charts/pgrescue/files/operator-rules.yaml"));
    granted.extend(self::granted(include_str!(
        "../../../charts/pgrescue/files/operator-own-namespace-rules.yaml"
    )));
    let missing: Vec<&Call> = made.difference(&granted).collect();
    let unused: Vec<&Call> = granted.difference(&made).collect();
    assert!(
        missing.is_empty() && unused.is_empty(),
        "missing: {missing:?}\nunused: {unused:?}"
    );
}
