//! What a command prints at its end, and its exit code.

use std::io::Write as _;

use super::EXIT_USAGE;
use crate::plan::Refusal;
use crate::plan::report::{EXIT_DONE, Report};

/// Prints a text to standard output, or the error to standard error.
pub fn print_or_fail<E: std::error::Error>(text: Result<String, E>) -> i32 {
    match text {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("error: {}", with_sources(&error));
            EXIT_USAGE
        }
    }
}

/// Prints a text to standard output. A reader that went away is no error.
#[must_use]
pub fn print(text: &str) -> i32 {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    EXIT_DONE
}

/// Prints a refusal to standard error and returns its exit code.
#[must_use]
pub fn fail(refusal: Refusal) -> i32 {
    eprintln!("error: {}", refusal.message);
    if let Some(hint) = &refusal.hint {
        eprintln!("what to do: {hint}");
    }
    Report::failed(refusal, None, None).exit_code()
}

/// An error and what caused it, in one line.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
