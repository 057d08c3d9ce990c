//! The fenced blocks of README.md and docs/, and what becomes of each: its home. An HTML comment right before a
//! block names the home; a block without one fails the tests.
//!
//! | comment                   | block | what is done with it |
//! |---------------------------|-------|----------------------|
//! | none                      | yaml  | its manifests are read and planned as `pgrescue run` and the operator do |
//! | `fields of: KIND`         | yaml  | the same, as fields of the `spec` of a KIND |
//! | `same as: PATH`           | yaml  | it must be that file of the repository |
//! | `file: NAME`              | yaml  | written to the folder in which the page's local commands run |
//! | `Helm values`             | yaml  | `helm template` takes it (end-to-end tests) |
//! | `kustomization beside config` | yaml | `kubectl kustomize` takes it (end-to-end tests) |
//! | `run here`                | sh    | run by the integration tests; `run here, exits CODE` where it shall fail |
//! | `run on the demo`         | sh    | run by the end-to-end tests after `make demo` |
//! | `targets of the Makefile` | sh    | each line is `make TARGET`, and the target is there |
//! | none                      | text, json, mermaid | shown |

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Page and line, for messages.
    pub place: String,
    /// Path of the page in the repository.
    pub page: String,
    pub home: Home,
    pub text: String,
}

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Home {
    Manifests,
    FieldsOf(String),
    SameAs(String),
    File(String),
    HelmValues,
    Kustomization,
    RunHere { exit_code: i32 },
    RunOnDemo,
    MakeTargets,
    Shown,
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and every page of docs/, by path in the repository.
pub fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(repository().join("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("docs/ can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.push(repository().join("README.md"));
    paths.sort();
    let page = |path: PathBuf| {
        let name = path.strip_prefix(repository()).expect("in the repository");
        let text = fs::read_to_string(&path).expect("a page is text");
        (name.display().to_string(), text)
    };
    paths.into_iter().map(page).collect()
}

/// Every block of every page, in order.
pub fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|(page, text)| blocks_of(page, text)).collect()
}

fn blocks_of(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut before = "";
    while let Some((number, line)) = lines.next() {
        let place = format!("{page}:{}", number + 1);
        assert!(
            !line.trim_start().starts_with("```") || line.starts_with("```"),
            "{place}: a block must not be indented, or nobody looks at it"
        );
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .collect();
            let home = home(language, before).unwrap_or_else(|| {
                panic!("{place}: a block of {language:?} after {before:?} has no home; see tests/integration/docs/blocks.rs")
            });
            let text = inside.join("\n") + "\n";
            blocks.push(Block {
                place,
                page: page.to_owned(),
                home,
                text,
            });
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    blocks
}

fn home(language: &str, before: &str) -> Option<Home> {
    let comment = before
        .strip_prefix("<!-- ")
        .and_then(|before| before.strip_suffix(" -->"))
        .unwrap_or_default();
    let after = |prefix: &str| comment.strip_prefix(prefix).map(str::to_owned);
    match (language, comment) {
        ("text" | "json" | "mermaid", "") => Some(Home::Shown),
        ("yaml", "") => Some(Home::Manifests),
        ("yaml", "Helm values") => Some(Home::HelmValues),
        ("yaml", "kustomization beside config") => Some(Home::Kustomization),
        ("yaml", _) => after("fields of: ")
            .map(Home::FieldsOf)
            .or_else(|| after("same as: ").map(Home::SameAs))
            .or_else(|| after("file: ").map(Home::File)),
        ("sh", "run here") => Some(Home::RunHere { exit_code: 0 }),
        ("sh", "run on the demo") => Some(Home::RunOnDemo),
        ("sh", "targets of the Makefile") => Some(Home::MakeTargets),
        ("sh", _) => {
            let exit_code = after("run here, exits ")?.parse().ok()?;
            Some(Home::RunHere { exit_code })
        }
        _ => None,
    }
}
