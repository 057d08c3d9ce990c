//! pgrescue backs up and restores PostgreSQL from Kubernetes.
//!
//! The flow is manifest -> validated plan (pure) -> Job -> agent steps -> status; each stage is a module.
#![forbid(unsafe_code)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod operator;
pub mod plan;
pub mod postgres;
pub mod references;
pub mod store;
