//! What a client program writes to its standard error: kept within bounds, secrets masked.

use std::collections::VecDeque;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Bytes kept of the beginning, and as many of the end.
const HALF_LIMIT_BYTES: usize = 256 * 1024;

/// Longest line kept whole.
const LINE_LIMIT_BYTES: usize = 16 * 1024;

/// Shorter secrets are not masked: the text would become unreadable, and they keep nobody out.
const SHORTEST_MASKED: usize = 3;

const MASK: &str = "********";

/// Lines of the beginning and of the end.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: Vec<String>,
    head_bytes: usize,
    tail: VecDeque<String>,
    tail_bytes: usize,
    truncated: bool,
}

impl Messages {
    /// Reads to the end. Lines that are not UTF-8 keep what can be read of them.
    pub(super) async fn read(source: Option<impl AsyncRead + Unpin>, secrets: &[SecretString]) -> Self {
        let mut messages = Self::default();
        let Some(source) = source else {
            return messages;
        };
        let needles = needles(secrets);
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return messages,
                Ok(_) => messages.push(&masked(&String::from_utf8_lossy(&line), &needles)),
            }
        }
    }

    fn push(&mut self, line: &str) {
        let mut end = line.len().min(LINE_LIMIT_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        self.truncated |= end < line.len();
        let line = line[..end].trim_end_matches('\n').to_owned();
        if self.tail.is_empty() && self.head_bytes + line.len() <= HALF_LIMIT_BYTES {
            self.head_bytes += line.len() + 1;
            self.head.push(line);
            return;
        }
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(line);
        while self.tail_bytes > HALF_LIMIT_BYTES {
            let Some(dropped) = self.tail.pop_front() else {
                return;
            };
            self.tail_bytes -= dropped.len() + 1;
            self.truncated = true;
        }
    }

    /// The text, and whether something was left out.
    pub(super) fn into_text(self) -> (String, bool) {
        let lines: Vec<String> = self.head.into_iter().chain(self.tail).collect();
        (lines.join("\n"), self.truncated)
    }
}

/// The text without these secrets.
pub(crate) fn without(secrets: &[SecretString], text: &str) -> String {
    masked(text, &needles(secrets))
}

/// Every form in which a secret may stand in a message, line by line, the longest first.
fn needles(secrets: &[SecretString]) -> Vec<String> {
    let mut needles = Vec::new();
    for secret in secrets {
        for line in secret
            .expose_secret()
            .lines()
            .filter(|line| line.len() >= SHORTEST_MASKED)
        {
            let doubled = line.replace('\'', "''");
            needles.push(line.replace('\\', "\\\\").replace('\'', "\\'"));
            needles.push(doubled.replace('\\', "\\\\"));
            needles.push(doubled);
            needles.push(line.to_owned());
        }
    }
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    needles.dedup();
    needles
}

fn masked(line: &str, needles: &[String]) -> String {
    needles
        .iter()
        .fold(line.to_owned(), |line, needle| line.replace(needle.as_str(), MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(input: &str, secrets: &[&str]) -> (String, bool) {
        let secrets: Vec<SecretString> = secrets.iter().map(|&secret| SecretString::from(secret)).collect();
        Messages::read(Some(input.as_bytes()), &secrets).await.into_text()
    }

    #[tokio::test]
    async fn a_secret_is_masked_however_sql_writes_it() {
        let input = "plain a'b\\c\nsql 'a''b\\c' E'a''b\\\\c'\nlines: first\nsecond'\n";
        let (text, truncated) = text(input, &["a'b\\c", "first\nsecond"]).await;
        assert_eq!(
            text,
            "plain ********\nsql '********' E'********'\nlines: ********\n********'"
        );
        assert!(!truncated);
    }

    #[tokio::test]
    async fn long_messages_keep_their_beginning_and_their_end() {
        let input: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        let (text, truncated) = text(&input, &[]).await;
        assert!(truncated);
        assert!(text.starts_with("line 0\n") && text.ends_with("line 99999"));
        assert!(text.len() <= 2 * HALF_LIMIT_BYTES);
    }
}
