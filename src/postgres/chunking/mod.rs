//! What decides how a table's rows become chunks: whether their binary form means the same on another server, which
//! blocks one COPY reads, and how the COPY is said. Nothing here asks a server.

mod portable;
mod ranges;
mod statement;

pub use portable::{PgType, PgTypes};
pub use ranges::{BlockRange, TableSize, Unit, units};
pub use statement::{BINARY_HEADER, BINARY_TRAILER, copy_out};
