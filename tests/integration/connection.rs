//! Sessions: libpq's order of sources, its six modes of TLS, and what each failure says.

mod failures;
mod sources;
mod tls;
mod wrong_certificates;
