//! Sessions over the protocol itself: they log in as every session does, and copy rows in bulk.

mod copy;
mod faults;
mod login;
