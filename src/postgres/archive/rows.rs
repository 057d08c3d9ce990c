//! Counts the rows of COPY data as it passes.

/// Counts rows: the lines before the end marker `\.` (`dumpTableData_copy` of `pg_dump.c` writes `\.`, then empty
/// lines). No row looks like the marker, for COPY doubles a backslash.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    newlines: u64,
    /// The last bytes seen, at most `TAIL`.
    tail: Vec<u8>,
    /// Whether more than the tail has been seen.
    longer: bool,
}

const TAIL: usize = 16;

impl RowCounter {
    pub(super) fn take(&mut self, data: &[u8]) {
        self.newlines += memchr::memchr_iter(b'\n', data).count() as u64;
        self.longer |= self.tail.len() + data.len() > TAIL;
        if data.len() >= TAIL {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&data[data.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }

    /// Rows up to now; those of unfinished lines and of the end marker make it differ a little from the result.
    pub(super) const fn lines(&self) -> u64 {
        self.newlines
    }

    /// The number of rows, `None` where the data does not end with the marker.
    pub(super) fn finish(&self) -> Option<u64> {
        let after = self.tail.iter().rev().take_while(|byte| **byte == b'\n').count();
        let rest = self.tail[..self.tail.len() - after].strip_suffix(b"\\.")?;
        let begins_a_line = match rest.last() {
            Some(byte) => *byte == b'\n',
            None => !self.longer,
        };
        (after > 0 && begins_a_line).then(|| self.newlines - after as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RowCounter;

    fn count(data: &[u8], pieces: usize) -> Option<u64> {
        let mut counter = RowCounter::default();
        for piece in data.chunks(pieces) {
            counter.take(piece);
        }
        counter.finish()
    }

    #[test]
    fn rows_are_the_lines_before_the_end_marker() {
        for pieces in [1, 2, 3, 7, 16, 17, 1000] {
            assert_eq!(count(b"\\.\n\n\n", pieces), Some(0));
            assert_eq!(count(b"\n\\.\n\n\n", pieces), Some(1), "a row of one empty text");
            assert_eq!(
                count(b"1\ta\n2\t\\\\.\n3\tlonger than the tail\n\\.\n\n\n", pieces),
                Some(3)
            );
            assert_eq!(count(b"1\n\\.\n", pieces), Some(1));
        }
    }

    #[test]
    fn data_that_does_not_end_with_the_marker_has_no_count() {
        for pieces in [1, 3, 1000] {
            assert_eq!(count(b"", pieces), None);
            assert_eq!(count(b"1\n2\n", pieces), None);
            assert_eq!(count(b"1\n2\\.\n\n\n", pieces), None);
            assert_eq!(count(b"1\n\\.", pieces), None);
            assert_eq!(count(b"a line as long as 16\\.\n\n\n", pieces), None);
            assert_eq!(
                count(b"01234567890\\.\n\n\n", pieces),
                None,
                "the tail holds just the marker"
            );
        }
    }

    proptest! {
        #[test]
        fn the_count_does_not_depend_on_where_buffers_end(rows in prop::collection::vec("[a-z.]{0,9}", 0..40), pieces in 1_usize..50) {
            let mut data = rows.iter().flat_map(|row| [row.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>();
            data.extend_from_slice(b"\\.\n\n\n");
            prop_assert_eq!(count(&data, pieces), Some(rows.len() as u64));
        }
    }
}
