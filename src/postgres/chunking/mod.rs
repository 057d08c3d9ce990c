//! What decides how a table's rows become chunks: whether their binary form means the same on another server, which
//! blocks one COPY reads, how the COPY is said, and what of its rows need not be kept. Nothing here asks a server.

mod padding;
mod portable;
mod ranges;
mod statement;

pub use padding::take_padding_off;
pub use portable::{PgType, PgTypes};
pub use ranges::{BlockRange, TableSize, Unit, units};
pub use statement::{BINARY_HEADER, BINARY_TRAILER, copy_out};
