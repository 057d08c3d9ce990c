//! Tests on a real Kubernetes cluster, run by `make e2e` (they need root, or a cluster
//! named by `E2E_KUBECONFIG`).
//!
//! `cluster` brings up what the tests share, `namespace` gives a test its own corner of
//! it, `operator` installs the operator and waits for its runs, `servers` starts PostgreSQL and S3, `certificates`
//! gives them TLS, `shop` stops runs in the middle, `blocks` reads the docs; every other module is one subject.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "../tests/integration/docs/blocks.rs"]
#[allow(dead_code, reason = "the integration tests read the other homes")]
mod blocks;
mod certificates;
mod cluster;
mod namespace;
mod operator;
mod own_node;
mod servers;
mod shop;
mod volume;

mod agent_rights;
mod chart;
mod cluster_is_real;
mod demo;
mod faults;
mod helm_wait;
mod lifecycle;
mod replicas;
mod rights;
mod runs;
mod secrets;
mod user_rights;
mod validation;
