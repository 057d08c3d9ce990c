//! Counting the rows of a COPY stream.

use crate::store::manifest::RowFormat;

/// Begins every binary stream.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Rows of a whole COPY stream; `None` where it is none.
#[must_use]
pub fn count(stream: &[u8], format: RowFormat) -> Option<u64> {
    match format {
        RowFormat::Text => count_text(stream),
        RowFormat::Binary => count_binary(stream),
    }
}

/// Newlines in values are escaped, so each ends a row.
fn count_text(stream: &[u8]) -> Option<u64> {
    let ends_well = stream.is_empty() || stream.ends_with(b"\n");
    ends_well.then(|| memchr::memchr_iter(b'\n', stream).count() as u64)
}

fn count_binary(stream: &[u8]) -> Option<u64> {
    let mut rest = stream.strip_prefix(SIGNATURE)?;
    let _flags = take(&mut rest, 4)?;
    let extension = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    take(&mut rest, usize::try_from(extension).ok()?)?;
    let mut rows = 0;
    loop {
        match i16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?) {
            -1 => return rest.is_empty().then_some(rows),
            fields => {
                for _ in 0..u16::try_from(fields).ok()? {
                    match i32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?) {
                        -1 => {}
                        length => {
                            take(&mut rest, usize::try_from(length).ok()?)?;
                        }
                    }
                }
                rows += 1;
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of two columns, one of them null.
    fn binary() -> Vec<u8> {
        let row = |second: &[u8]| [&[0, 2, 0, 0, 0, 1, b'a'], second].concat();
        let null = (-1_i32).to_be_bytes();
        let header = [SIGNATURE, &[0; 8]].concat();
        [header, row(&null), row(&[0, 0, 0, 0]), vec![0xff, 0xff]].concat()
    }

    #[test]
    fn rows_are_counted_in_both_formats() {
        assert_eq!(count(b"", RowFormat::Text), Some(0));
        assert_eq!(count(b"1\ta\\nb\n\n", RowFormat::Text), Some(2));
        assert_eq!(count(&binary(), RowFormat::Binary), Some(2));
    }

    #[test]
    fn a_stream_that_is_cut_or_goes_on_is_no_copy_stream() {
        assert_eq!(count(b"1\n2", RowFormat::Text), None);
        let whole = binary();
        for length in 0..whole.len() {
            assert_eq!(count(&whole[..length], RowFormat::Binary), None, "{length}");
        }
        assert_eq!(count(&[&whole[..], &[0]].concat(), RowFormat::Binary), None);
        assert_eq!(
            count(&[SIGNATURE, &[0; 4], &[0xff; 4]].concat(), RowFormat::Binary),
            None
        );
    }
}
