//! Which index is built next, and with how many parallel workers. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::build::IndexBuild;
use crate::agent::restore::count_rows::Table;

/// An index that is being built.
struct Running {
    dump_id: i32,
    table: Table,
    locks_table: bool,
    workers: u64,
}

/// Indexes that wait, and those that are being built: by as many processes as the restore has connections, but for the
/// last ones. With more, each would get less of a processor, and parallel workers sort and merge more than one process does.
pub(super) struct Queue {
    /// The next one first.
    waiting: VecDeque<IndexBuild>,
    waiting_cost: u64,
    running: Vec<Running>,
    jobs: u64,
    most_workers: u64,
}

impl Queue {
    /// What takes longest comes first, so that the end is shared by short ones. What keeps others away from its table comes
    /// before them: it counts as much as all of them. A statement may have `most_workers`.
    pub(super) fn new(mut builds: Vec<IndexBuild>, jobs: u8, most_workers: u64) -> Self {
        let mut of_tables: BTreeMap<Table, u64> = BTreeMap::new();
        for build in &builds {
            *of_tables.entry(build.table.clone()).or_default() += build.cost;
        }
        builds.sort_by_cached_key(|build| {
            let cost = if build.locks_table {
                of_tables.get(&build.table).copied().unwrap_or_default()
            } else {
                build.cost
            };
            (Reverse(cost), !build.locks_table, build.dump_id)
        });
        Self {
            waiting_cost: of_tables.values().sum(),
            waiting: builds.into(),
            running: Vec::new(),
            jobs: jobs.max(1).into(),
            most_workers,
        }
    }

    /// The next index and its parallel workers; `None` where none can be begun before another is done.
    pub(super) fn take(&mut self) -> Option<(IndexBuild, u64)> {
        let at = self.waiting.iter().position(|build| self.can_begin(build))?;
        let build = self.waiting.remove(at)?;
        let share = self.share(&build);
        self.waiting_cost = self.waiting_cost.saturating_sub(build.cost);
        self.running.push(Running {
            dump_id: build.dump_id,
            table: build.table.clone(),
            locks_table: build.locks_table,
            workers: 0,
        });
        let workers = share.max(self.spare()).min(self.most_workers);
        if let Some(running) = self.running.last_mut() {
            running.workers = workers;
        }
        Some((build, workers))
    }

    /// The index is built.
    pub(super) fn done(&mut self, dump_id: i32) {
        self.running.retain(|running| running.dump_id != dump_id);
    }

    fn can_begin(&self, build: &IndexBuild) -> bool {
        let mut beside = self.running.iter().filter(|running| running.table == build.table);
        beside.all(|running| !running.locks_table && !build.locks_table)
    }

    /// Workers for an index that takes more than one connection's part of what waits, itself included: it would be built
    /// alone at the end.
    fn share(&self, build: &IndexBuild) -> u64 {
        let waiting = u128::from(self.waiting_cost);
        let part = u128::from(build.cost) * u128::from(self.jobs) + waiting / 2;
        let part = part.checked_div(waiting).unwrap_or(1);
        u64::try_from(part).unwrap_or(u64::MAX).saturating_sub(1)
    }

    /// Connections that have nothing to begin beside what is being built.
    fn spare(&self) -> u64 {
        let at_work: u64 = self.running.iter().map(|running| 1 + running.workers).sum();
        let idle = self.jobs.saturating_sub(at_work);
        let mut beside: Vec<&IndexBuild> = Vec::new();
        for build in self.waiting.iter().filter(|build| self.can_begin(build)) {
            if beside.len() as u64 == idle {
                break;
            }
            let kept_away =
                |other: &&IndexBuild| other.table == build.table && (other.locks_table || build.locks_table);
            if !beside.iter().any(kept_away) {
                beside.push(build);
            }
        }
        idle - beside.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds of tables: name, cost, whether a constraint makes the index.
    fn queue(builds: &[(&str, u64, bool)], jobs: u8) -> Queue {
        let builds = builds
            .iter()
            .zip(1..)
            .map(|((table, cost, constraint), dump_id)| IndexBuild::sample(dump_id, table, *cost, *constraint));
        Queue::new(builds.collect(), jobs, 4)
    }

    fn take(queue: &mut Queue) -> Option<(i32, u64)> {
        queue.take().map(|(build, workers)| (build.dump_id, workers))
    }

    #[test]
    fn the_longest_come_first_with_one_process_each() {
        let mut queue = queue(
            &[("a", 10, false), ("b", 30, true), ("c", 20, false), ("d", 10, true)],
            2,
        );
        assert_eq!(take(&mut queue), Some((2, 0)));
        assert_eq!(take(&mut queue), Some((3, 0)));
        queue.done(3);
        assert_eq!(take(&mut queue), Some((4, 0)));
        queue.done(2);
        assert_eq!(take(&mut queue), Some((1, 1)), "the last one has both");
        assert_eq!(take(&mut queue), None);
    }

    #[test]
    fn what_locks_its_table_is_built_alone_there() {
        let mut queue = queue(&[("a", 9, false), ("a", 2, true), ("a", 9, false), ("b", 10, false)], 4);
        assert_eq!(take(&mut queue), Some((2, 2)), "two connections are left over");
        assert_eq!(take(&mut queue), Some((4, 0)), "they are taken");
        assert_eq!(take(&mut queue), None);
        queue.done(2);
        assert_eq!(take(&mut queue).map(|(build, _)| build), Some(1));
        assert_eq!(take(&mut queue).map(|(build, _)| build), Some(3));
    }

    #[test]
    fn a_constraint_waits_for_the_indexes_of_its_table() {
        let mut queue = queue(&[("a", 9, false)], 2);
        assert!(take(&mut queue).is_some());
        queue.waiting.push_back(IndexBuild::sample(7, "a", 9, true));
        queue.waiting_cost += 9;
        assert_eq!(take(&mut queue), None);
        queue.done(1);
        assert_eq!(take(&mut queue), Some((7, 1)));
    }

    #[test]
    fn an_index_that_would_be_left_alone_has_workers_from_the_beginning() {
        let mut queue = queue(&[("a", 80, true), ("b", 10, true), ("c", 10, true)], 2);
        assert_eq!(take(&mut queue), Some((1, 1)));
        assert_eq!(take(&mut queue), Some((2, 0)));
    }

    #[test]
    fn no_index_has_more_workers_than_the_server_allows() {
        let mut queue = queue(&[("a", 80, true)], 64);
        assert_eq!(take(&mut queue), Some((1, 4)));
        let mut none = Queue::new(Vec::new(), 2, 4);
        assert_eq!(take(&mut none), None);
    }
}
