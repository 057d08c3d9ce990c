//! The controllers: plan, apply, observe, status.
