//! Values of `character(n)` without the blanks at their end. A server sends them, and puts them back when it takes a
//! value (`bpchar_input` in `varchar.c`). Those that it is sent it checks and counts one by one: a third of the time in
//! which it loads pgbench's `pgbench_accounts`, whose `filler` is 84 blanks.

use super::statement::BINARY_HEADER;

/// What stands for the length of a value that is not there.
const NULL: i32 = -1;

/// Blanks that are looked at together.
const BLANKS: [u8; 16] = [b' '; 16];

/// Takes the blanks off these columns of a binary stream that has no trailer yet. In the encoding of every server a byte
/// of 0x20 is a blank, and never a part of another character (manual, "Character Set Support").
///
/// `of` is the number of columns, `padded` the places of those with blanks, ascending. Returns the number of rows; `None`
/// where the stream is not what the manual says of `COPY` ("Binary Format"), and may have been changed in part.
#[must_use]
pub fn take_padding_off(stream: &mut Vec<u8>, of: usize, padded: &[usize]) -> Option<u64> {
    let mut rows = 0;
    let mut at = BINARY_HEADER.len();
    // What is kept goes to `to`, in pieces that begin at `from`.
    let (mut from, mut to) = (at, at);
    while at < stream.len() {
        let columns = u16::from_be_bytes(*stream.get(at..)?.first_chunk()?);
        if usize::from(columns) != of {
            return None;
        }
        at += 2;
        let mut padded = padded.iter().copied().peekable();
        for column in 0..of {
            let length = i32::from_be_bytes(*stream.get(at..)?.first_chunk()?);
            let value = at + 4;
            let is_padded = padded.next_if_eq(&column).is_some();
            if length == NULL {
                at = value;
                continue;
            }
            let end = value + usize::try_from(length).ok()?;
            if is_padded {
                let kept = without_blanks(stream.get(value..end)?);
                if value + kept < end {
                    stream[at..value].copy_from_slice(&i32::try_from(kept).ok()?.to_be_bytes());
                    stream.copy_within(from..value + kept, to);
                    to += value + kept - from;
                    from = end;
                }
            }
            at = end;
        }
        rows += 1;
    }
    if at != stream.len() {
        return None;
    }
    stream.copy_within(from.., to);
    stream.truncate(to + at - from);
    Some(rows)
}

/// The length without the blanks at the end.
fn without_blanks(mut value: &[u8]) -> usize {
    while let Some(rest) = value.strip_suffix(&BLANKS) {
        value = rest;
    }
    while let Some(rest) = value.strip_suffix(b" ") {
        value = rest;
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: &[&[Option<&str>]]) -> Vec<u8> {
        let mut stream = BINARY_HEADER.to_vec();
        for row in rows {
            stream.extend(u16::try_from(row.len()).unwrap().to_be_bytes());
            for value in *row {
                let length = value.map_or(NULL, |value| i32::try_from(value.len()).unwrap());
                stream.extend(length.to_be_bytes());
                stream.extend(value.unwrap_or_default().as_bytes());
            }
        }
        stream
    }

    #[test]
    fn blanks_at_the_end_of_padded_columns_go_and_all_else_stays() {
        let wide = format!("a b{}", " ".repeat(45));
        let blank = " ".repeat(16);
        let mut padded = stream(&[
            &[Some("id  "), Some(&wide), None, Some("z ")],
            &[None, Some(&blank), Some("\u{e9} \t "), Some("  ")],
            &[Some(""), None, Some("full"), None],
            &[Some(" "), Some(" x"), Some(""), Some(&blank)],
        ]);
        let expected = stream(&[
            &[Some("id  "), Some("a b"), None, Some("z ")],
            &[None, Some(""), Some("\u{e9} \t"), Some("  ")],
            &[Some(""), None, Some("full"), None],
            &[Some(" "), Some(" x"), Some(""), Some(&blank)],
        ]);
        assert_eq!(take_padding_off(&mut padded, 4, &[1, 2]), Some(4));
        assert!(padded == expected, "{padded:?}");
        assert_eq!(take_padding_off(&mut padded, 4, &[1, 2]), Some(4));
        assert!(padded == expected, "nothing is left to take");
        let mut empty = stream(&[]);
        assert_eq!(take_padding_off(&mut empty, 4, &[1]), Some(0));
        assert_eq!(empty, BINARY_HEADER);
    }

    #[test]
    fn a_stream_of_another_form_is_refused() {
        let whole = stream(&[&[Some("one"), Some("two  ")], &[None, Some("three")]]);
        assert_eq!(take_padding_off(&mut whole.clone(), 2, &[1]), Some(2));
        assert_eq!(take_padding_off(&mut whole.clone(), 3, &[1]), None);
        for length in BINARY_HEADER.len() + 1..whole.len() {
            let rows = take_padding_off(&mut whole[..length].to_vec(), 2, &[1]);
            assert!(rows.is_none_or(|rows| rows == 1), "{length} bytes");
        }
        let mut negative = whole;
        negative[BINARY_HEADER.len() + 2..][..4].copy_from_slice(&(-2_i32).to_be_bytes());
        assert_eq!(take_padding_off(&mut negative, 2, &[1]), None);
    }
}
