//! Which chunk is loaded next. Pure.

use std::collections::VecDeque;

/// One chunk: its table by number, and its place among the table's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Number of the table.
    pub table: usize,
    /// Place in the manifest's list.
    pub ordinal: usize,
}

/// Chunks of one table that wait.
#[derive(Debug)]
struct Lane {
    table: usize,
    waiting: VecDeque<(usize, u64)>,
    bytes: u64,
    working: u64,
}

/// Chunks that wait. A worker stays at a table to its end, and then goes to the largest that nobody is at: so as many
/// tables as can be get their rows in the order in which they were stored, and no two streams into one table hold each
/// other up. What is left at the end is shared.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Vec<Lane>,
}

impl Queue {
    /// Of chunks with their bytes, in the order in which those of one table are to be loaded.
    pub(super) fn new(chunks: impl IntoIterator<Item = (Place, u64)>) -> Self {
        let mut lanes: Vec<Lane> = Vec::new();
        for (Place { table, ordinal }, bytes) in chunks {
            if lanes.last().is_none_or(|lane| lane.table != table) {
                lanes.push(Lane {
                    table,
                    waiting: VecDeque::new(),
                    bytes: 0,
                    working: 0,
                });
            }
            if let Some(lane) = lanes.last_mut() {
                lane.waiting.push_back((ordinal, bytes));
                lane.bytes += bytes;
            }
        }
        Self { lanes }
    }

    /// The next chunk for a worker whose last one was of the table `at`; `None` where none waits.
    pub(super) fn take(&mut self, at: Option<usize>) -> Option<Place> {
        let waiting = self.lanes.iter_mut().filter(|lane| !lane.waiting.is_empty());
        let lane = waiting.max_by_key(|lane| {
            let share = lane.bytes / (lane.working + 1);
            (
                at == Some(lane.table),
                lane.working == 0,
                share,
                std::cmp::Reverse(lane.table),
            )
        })?;
        let (ordinal, bytes) = lane.waiting.pop_front()?;
        lane.bytes -= bytes;
        lane.working += 1;
        Some(Place {
            table: lane.table,
            ordinal,
        })
    }

    /// A worker is done with a chunk of the table.
    pub(super) fn done(&mut self, table: usize) {
        if let Some(at) = self.lanes.iter().position(|lane| lane.table == table) {
            let lane = &mut self.lanes[at];
            lane.working = lane.working.saturating_sub(1);
            if lane.working == 0 && lane.waiting.is_empty() {
                self.lanes.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(table: usize, ordinal: usize) -> Place {
        Place { table, ordinal }
    }

    fn queue(tables: &[&[u64]]) -> Queue {
        let chunks = tables.iter().enumerate().flat_map(|(table, chunks)| {
            let chunks = chunks.iter().enumerate();
            chunks.map(move |(ordinal, bytes)| (place(table, ordinal), *bytes))
        });
        Queue::new(chunks.collect::<Vec<_>>())
    }

    #[test]
    fn a_worker_takes_the_largest_table_that_nobody_is_at_and_stays_to_its_end() {
        let mut queue = queue(&[&[10], &[90, 90, 90], &[30, 30]]);
        assert_eq!(queue.take(None), Some(place(1, 0)));
        assert_eq!(queue.take(None), Some(place(2, 0)));
        assert_eq!(queue.take(Some(2)), Some(place(2, 1)));
        assert_eq!(queue.take(Some(1)), Some(place(1, 1)));
        assert_eq!(queue.take(Some(2)), Some(place(0, 0)));
        assert_eq!(queue.take(Some(0)), Some(place(1, 2)), "what is left is shared");
        assert_eq!(queue.take(Some(1)), None);
    }

    #[test]
    fn workers_without_a_table_of_their_own_go_where_most_is_left_for_each() {
        let mut queue = queue(&[&[10; 3], &[100; 9]]);
        let first: Vec<_> = (0..4).filter_map(|_| queue.take(None)).collect();
        assert_eq!(first, [place(1, 0), place(0, 0), place(1, 1), place(1, 2)]);
        queue.done(0);
        assert_eq!(queue.take(None), Some(place(0, 1)));
    }

    #[test]
    fn every_chunk_is_given_out_once_and_empty_ones_too() {
        let mut queue = queue(&[&[0, 0], &[5], &[7, 0, 7]]);
        let mut taken = Vec::new();
        while let Some(place) = queue.take(None) {
            taken.push(place);
            if taken.len().is_multiple_of(2) {
                queue.done(place.table);
            }
        }
        taken.sort();
        let all = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)];
        assert_eq!(taken, all.map(|(table, ordinal)| place(table, ordinal)));
    }
}
