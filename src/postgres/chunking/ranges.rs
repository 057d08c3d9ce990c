//! Which blocks one COPY reads, and in which order the workers take them.

/// Bytes of heap in one range. A fixed multiple of blocks: rows that did not change give the same chunk again, whatever
/// the table's size has become. So small that one row changes little; smaller ranges cost the server more.
const RANGE_BYTES: u64 = 4 << 20;

/// A table of more bytes is read in larger ranges: the manifest has a line for each.
const LARGE_TABLE_BYTES: u64 = 16 << 30;

/// Bytes of heap in one range of such a table.
const LARGE_RANGE_BYTES: u64 = 16 << 20;

/// How many times its own weight of work one COPY leaves behind it, so that no worker is left alone with it at the end.
const LEAD: u64 = 16;

/// Heap blocks from `first` up to, not including, `end`; the last range of a table is open: rows that the snapshot sees
/// are never behind the end of the file, but nothing has to rely on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockRange {
    /// First block.
    pub first: u64,
    /// Block behind the last; `None` is open.
    pub end: Option<u64>,
}

/// What the order and the ranges of a table follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Blocks of the table itself.
    pub blocks: u64,
    /// Blocks of what is stored out of line.
    pub toast_blocks: u64,
    /// Bytes in a block (`block_size`).
    pub block_bytes: u64,
    /// Whether its blocks can be read in ranges: a heap, on a server that has TID range scans. What has none is read as
    /// one stream, whether the file has blocks or not.
    pub ranges: bool,
}

/// One COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Place of its table in the list.
    pub table: usize,
    /// Its blocks; `None` is the whole table.
    pub range: Option<BlockRange>,
    /// Blocks to read, those out of line among them.
    weight: u64,
    /// Its number among the table's, from 1, and how many those are.
    part: (u64, u64),
}

impl Unit {
    /// When it is taken: after so much of the work, in blocks.
    fn turn(&self, work: u64) -> u128 {
        let latest = work.saturating_sub(self.weight.saturating_mul(LEAD));
        let (number, count) = self.part;
        u128::from(latest) * u128::from(number) / u128::from(count)
    }
}

/// Every COPY that the tables need, in the order in which they are taken. What is large comes so early that no worker is
/// left alone with it at the end, the largest first. The ranges of tables alternate, in the proportion of their numbers:
/// some tables compress well and load the processors, others load the way to the store. What is small comes last. A
/// heap without blocks has no rows and needs none.
#[must_use]
pub fn units(tables: &[TableSize]) -> Vec<Unit> {
    let mut units: Vec<Unit> = tables
        .iter()
        .enumerate()
        .flat_map(|(at, size)| of_table(at, size))
        .collect();
    let work = units.iter().map(|unit| unit.weight).sum();
    units.sort_by_key(|unit| (unit.turn(work), std::cmp::Reverse(unit.weight)));
    units
}

fn of_table(table: usize, size: &TableSize) -> Vec<Unit> {
    let TableSize {
        blocks,
        toast_blocks,
        block_bytes,
        ranges,
    } = *size;
    let whole = Unit {
        table,
        range: None,
        weight: blocks + toast_blocks,
        part: (1, 1),
    };
    if !ranges {
        return vec![whole];
    }
    let range_bytes = if blocks.saturating_mul(block_bytes) > LARGE_TABLE_BYTES {
        LARGE_RANGE_BYTES
    } else {
        RANGE_BYTES
    };
    let per_range = (range_bytes / block_bytes.max(1)).max(1);
    match blocks.div_ceil(per_range) {
        0 => Vec::new(),
        1 => vec![whole],
        count => (0..count)
            .map(|number| {
                let first = number * per_range;
                let end = (number + 1 < count).then_some(first + per_range);
                Unit {
                    table,
                    range: Some(BlockRange { first, end }),
                    weight: end.unwrap_or(blocks) - first + toast_blocks / count,
                    part: (number + 1, count),
                }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heap(blocks: u64, toast_blocks: u64) -> TableSize {
        TableSize {
            blocks,
            toast_blocks,
            block_bytes: 8192,
            ranges: true,
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "as a unit has it")]
    fn range(first: u64, end: Option<u64>) -> Option<BlockRange> {
        Some(BlockRange { first, end })
    }

    fn shown(tables: &[TableSize]) -> Vec<(usize, Option<BlockRange>)> {
        units(tables).iter().map(|unit| (unit.table, unit.range)).collect()
    }

    #[test]
    fn a_table_is_read_in_ranges_of_512_blocks_of_which_the_last_is_open() {
        assert_eq!(
            shown(&[heap(1300, 0)]),
            [
                (0, range(0, Some(512))),
                (0, range(512, Some(1024))),
                (0, range(1024, None))
            ]
        );
        assert_eq!(shown(&[heap(512, 0)]), [(0, None)]);
        assert_eq!(shown(&[heap(0, 0)]), []);
        let larger_blocks = TableSize {
            block_bytes: 32_768,
            ..heap(200, 0)
        };
        assert_eq!(
            shown(&[larger_blocks]),
            [(0, range(0, Some(128))), (0, range(128, None))]
        );
    }

    #[test]
    fn a_table_of_more_than_16_gib_is_read_in_ranges_of_2048_blocks() {
        let sixteen_gib = (16 << 30) / 8192;
        assert_eq!(shown(&[heap(sixteen_gib, 0)])[0], (0, range(0, Some(512))));
        assert_eq!(shown(&[heap(sixteen_gib + 1, 0)])[0], (0, range(0, Some(2048))));
    }

    #[test]
    fn what_has_no_ranges_is_one_stream_even_where_its_file_is_empty() {
        let stream = |blocks| TableSize {
            ranges: false,
            ..heap(blocks, 0)
        };
        assert_eq!(shown(&[stream(0), stream(90_000)]), [(1, None), (0, None)]);
    }

    #[test]
    fn the_largest_work_comes_first_and_rows_out_of_line_count() {
        let order: Vec<usize> = units(&[heap(10, 0), heap(1024, 0), heap(20, 9000), heap(30, 0)])
            .iter()
            .map(|unit| unit.table)
            .collect();
        assert_eq!(order, [2, 1, 1, 3, 0]);
    }

    #[test]
    fn ranges_of_tables_alternate_and_small_tables_come_last() {
        let tables = [heap(7, 0), heap(40 * 512, 0), heap(20 * 512, 0), heap(500, 0)];
        let order: Vec<usize> = units(&tables).iter().map(|unit| unit.table).collect();
        let (ranges, small) = order.split_at(60);
        assert!(ranges.chunks(3).all(|three| three == [1, 1, 2]), "{ranges:?}");
        assert_eq!(small, [3, 0]);
    }

    #[test]
    fn what_is_large_among_much_else_begins_early_enough() {
        let mut tables = vec![heap(100 * 512, 0); 3];
        tables.push(TableSize {
            ranges: false,
            ..heap(4000, 0)
        });
        let units = units(&tables);
        let behind = units.iter().rev().take_while(|unit| unit.table != 3);
        let behind: u64 = behind.map(|unit| unit.weight).sum();
        assert!((LEAD * 3500..=LEAD * 4000).contains(&behind), "{behind}");
    }

    proptest! {
        #[test]
        fn the_ranges_of_a_table_meet_without_a_gap(blocks in 1_u64..200_000, toast in 0_u64..1_000_000) {
            let mut ranges: Vec<BlockRange> = units(&[heap(blocks, toast)]).iter().filter_map(|unit| unit.range).collect();
            ranges.sort();
            let mut next = Some(0);
            for range in ranges {
                prop_assert_eq!(next, Some(range.first));
                next = range.end;
            }
            prop_assert_eq!(next, if blocks > 512 { None } else { Some(0) });
        }
    }
}
