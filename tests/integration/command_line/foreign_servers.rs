//! `pgrescue foreign-servers`: what it prints can be pasted into a restore, and works.

use serde_json::{Value, json};

use super::{Folder, backup, restore, secret};
use crate::fixtures::CANARY;
use crate::foreign_rewrite::{mappings_of, servers_of};
use crate::parts::PostgresServer;

fn block(folder: &Folder, arguments: &[&str]) -> String {
    let output = folder.pgrescue(&[&["foreign-servers"], arguments].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(0), ""), "{arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_block_of_a_database_and_that_of_its_backup_are_the_same_and_restore_it() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("block");
    source.load_everything();
    let target = server.reserve_database("block_copy");
    let folder = Folder::of(&source);
    folder.run("backup.yaml", &[]).outcome("Succeeded");
    let without_rules = restore("copy", &target.name, json!({"subscriptions": {"drop": true}}));
    folder.write("restore.yaml", std::slice::from_ref(&without_rules));

    let printed = block(&folder, &["-f", "backup.yaml"]);
    assert!(!printed.contains(CANARY), "{printed}");
    assert_eq!(block(&folder, &["-f", "restore.yaml"]), printed);

    // What the comments say is left to do: a Secret for each mapping, with the options that it had.
    let pasted: Value = serde_saphyr::from_str(&printed).expect("YAML");
    let mappings = mappings_of(&source);
    let mut manifests = Vec::new();
    for rule in pasted["foreignServers"].as_array().expect("rules") {
        for mapping in rule["userMappings"].as_array().into_iter().flatten() {
            let Some(name) = mapping["secretRef"]["name"].as_str() else {
                continue;
            };
            let user = mapping["localUser"]
                .as_str()
                .expect("a role")
                .replace("PUBLIC", "public");
            let server = rule["match"]["name"].as_str().expect("a name");
            manifests.push(secret(name, &json!(mappings[&format!("{user}@{server}")])));
        }
    }
    let mut manifest = without_rules;
    manifest["spec"]["foreignServers"] = pasted["foreignServers"].clone();
    manifests.push(manifest);
    folder.write("restore.yaml", &manifests);
    let run = folder.run("restore.yaml", &[]);
    run.outcome("Succeeded");
    assert_eq!(mappings_of(&target), mappings);
    let (mut expected, restored) = (servers_of(&source), servers_of(&target));
    let secret_options = expected.insert("odd_remote".into(), restored["odd_remote"].clone());
    assert_eq!(restored, expected);
    assert_ne!(
        secret_options.as_ref(),
        Some(&restored["odd_remote"]),
        "they are dropped unless they are given"
    );
}

#[test]
fn the_database_is_the_one_that_the_option_or_the_manifest_names() {
    let server = PostgresServer::shared(16);
    let [one, other] = ["one", "other"].map(|name| {
        let database = server.create_database(name);
        database.psql(&format!(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far_{name} FOREIGN DATA WRAPPER w"
        ));
        database
    });
    let folder = Folder::of(&one);
    assert!(block(&folder, &["-f", "backup.yaml"]).contains("far_one"));
    let named = ["-f", "backup.yaml", "--database", &other.name];
    assert!(block(&folder, &named).contains("far_other"));
    folder.write(
        "two.yaml",
        &[backup("two", json!({"databases": {"include": [other.name]}}))],
    );
    assert!(block(&folder, &["-f", "two.yaml"]).contains("far_other"));

    let absent = folder.pgrescue(&["foreign-servers", "-f", "backup.yaml", "--database", "absent"]);
    let stderr = String::from_utf8_lossy(&absent.stderr);
    assert_eq!(absent.status.code(), Some(10), "{stderr}");
    assert!(
        stderr.contains("error: ") && stderr.contains("what to do: "),
        "{stderr}"
    );
}
