//! How many bytes a large chunk is likely to take once it is compressed. Pure.

use super::WriterOptions;

/// Chunks of more bytes are large: the sessions of a backup have room for one of this size each.
const LARGE: u64 = WriterOptions::SESSION_BYTES_IN_FLIGHT;

/// What the frames of large chunks took of late.
#[derive(Debug)]
pub(super) struct Expectation {
    /// Bytes of a frame for each 1000 of its chunk.
    permille: usize,
}

impl Default for Expectation {
    fn default() -> Self {
        Self { permille: 500 }
    }
}

impl Expectation {
    /// Bytes that the frame of a chunk is likely to fit into; no bound where the chunk is not large.
    pub(super) fn of(&self, bytes: usize) -> usize {
        if bytes as u64 <= LARGE {
            usize::MAX
        } else {
            bytes / 1000 * self.permille * 5 / 4
        }
    }

    /// A frame was made, or was not since it is larger than was expected: it counts as large as its chunk. More is
    /// expected at once, less only after several: a frame that does not fit is made twice.
    pub(super) fn learn(&mut self, bytes: usize, frame_bytes: Option<usize>) {
        if bytes as u64 <= LARGE {
            return;
        }
        let found = frame_bytes.unwrap_or(bytes).saturating_mul(1000).div_ceil(bytes);
        self.permille = if found < self.permille {
            self.permille - (self.permille - found).div_ceil(4)
        } else {
            found
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 16 << 20;

    #[test]
    fn large_chunks_are_expected_to_take_what_the_last_ones_took_and_some_more() {
        let mut expectation = Expectation::default();
        for _ in 0..20 {
            expectation.learn(CHUNK, Some(CHUNK / 4));
        }
        let expected = expectation.of(CHUNK);
        assert!((CHUNK / 4..CHUNK / 3).contains(&expected), "{expected}");
        // As much as was found for one, at once.
        expectation.learn(CHUNK, Some(CHUNK / 2));
        assert!(expectation.of(CHUNK) > CHUNK / 2);
        // One that did not fit: everything, and not for ever.
        expectation.learn(CHUNK, None);
        assert!(expectation.of(CHUNK) > CHUNK);
        for _ in 0..20 {
            expectation.learn(CHUNK, Some(CHUNK / 4));
        }
        assert!(expectation.of(CHUNK) < CHUNK / 3);
    }

    #[test]
    fn small_chunks_have_all_room_and_teach_nothing() {
        let mut expectation = Expectation::default();
        let largest_small = usize::try_from(LARGE).unwrap();
        assert_eq!(expectation.of(largest_small), usize::MAX);
        let before = expectation.of(CHUNK);
        expectation.learn(largest_small, None);
        expectation.learn(0, Some(0));
        assert_eq!(expectation.of(CHUNK), before);
    }
}
