//! How large the parts of a multipart upload are.
//!
//! S3 takes 10,000 parts of at most 5 GiB, an object of at most 5 TiB, and does not ask for parts of one size. The
//! size of an archive is not known before its end, so parts begin small and double:
//!
//! | object up to | part | parts held in memory | memory |
//! |---|---|---|---|
//! | 8 MiB | one request | 1 | 8 MiB |
//! | 6.25 GiB | 8 MiB | 3 | 24 MiB |
//! | 18.75 GiB | 16 MiB | 3 | 48 MiB |
//! | 43.75 GiB | 32 MiB | 3 | 96 MiB |
//! | 93.75 GiB | 64 MiB | 2 | 128 MiB |
//! | 193.75 GiB | 128 MiB | 2 | 256 MiB |
//! | 393.75 GiB | 256 MiB | 2 | 512 MiB |
//! | 793.75 GiB | 512 MiB | 2 | 1 GiB |
//! | 5 TiB | 1 GiB | 2 | 2 GiB |

/// The most parts of one upload.
pub(super) const MOST_PARTS: u32 = 10_000;

const MIB: usize = 1024 * 1024;

/// Size of the first parts, and of the largest object that is sent in one request, in bytes.
pub(super) const FIRST: usize = 8 * MIB;

const LARGEST: usize = 1024 * MIB;

/// So many parts of one size, then the double.
const STEP: u32 = 800;

/// Size in bytes of a part; `number` counts from 1.
pub(super) fn of_part(number: u32) -> usize {
    let doublings = number.saturating_sub(1) / STEP;
    FIRST.checked_shl(doublings).map_or(LARGEST, |size| size.min(LARGEST))
}

/// How many parts of this size are sent at a time, while one more is filled.
pub(super) const fn in_flight(part: usize) -> usize {
    if part <= 32 * MIB { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes() {
        let mut total = 0_u64;
        let mut before = 0;
        for number in 1..=MOST_PARTS {
            let size = of_part(number);
            assert!(size >= before && (5 * MIB..=5 * 1024 * MIB).contains(&size), "{number}");
            before = size;
            total += size as u64;
        }
        assert!(total >= 5 * 1024 * 1024 * 1024 * 1024, "{total}");
    }

    #[test]
    fn an_object_of_ninety_gibibytes_needs_at_most_128_mebibytes_of_memory() {
        let mut total = 0_u64;
        for number in 1.. {
            let size = of_part(number);
            assert!(size * (in_flight(size) + 1) <= 128 * MIB);
            total += size as u64;
            if total >= 93 * 1024 * 1024 * 1024 {
                break;
            }
        }
    }
}
