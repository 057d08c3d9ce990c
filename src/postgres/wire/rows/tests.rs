use proptest::prelude::*;

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn header(extension: &[u8]) -> Vec<u8> {
    let length = u32::try_from(extension.len()).unwrap();
    [&SIGNATURE[..], &[0; 4], &length.to_be_bytes(), extension].concat()
}

/// A stream as the server sends it, with the rows alone.
#[derive(Debug)]
struct Stream {
    format: Format,
    sent: Vec<u8>,
    rows: Vec<Vec<u8>>,
}

impl Stream {
    fn text(rows: Vec<Vec<u8>>) -> Self {
        let rows: Vec<Vec<u8>> = rows.iter().map(|row| [row, &b"\n"[..]].concat()).collect();
        let mut sent: Vec<u8> = rows.iter().flat_map(|row| message(COPY_DATA_TAG, row)).collect();
        sent.extend(message(b'c', &[]));
        Self {
            format: Format::Text,
            sent,
            rows,
        }
    }

    fn binary(rows: Vec<Vec<u8>>, extension: &[u8]) -> Self {
        let rows: Vec<Vec<u8>> = rows.iter().map(|row| [&[0, 2][..], row].concat()).collect();
        let mut sent = Vec::new();
        let mut in_front = header(extension);
        for row in rows.iter().map(Vec::as_slice).chain([&[0xff, 0xff][..]]) {
            sent.extend(message(COPY_DATA_TAG, &[&in_front, row].concat()));
            in_front.clear();
        }
        sent.extend(message(b'c', &[]));
        Self {
            format: Format::Binary { fields: 2 },
            sent,
            rows,
        }
    }
}

fn streams() -> impl Strategy<Value = Stream> {
    let rows = || prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20);
    prop_oneof![
        rows().prop_map(Stream::text),
        (rows(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(rows, extension)| Stream::binary(rows, &extension)),
    ]
}

/// Gives `stream` the bytes cut at the given places, over and over, and takes at most `limit` bytes of rows at a time.
fn take_all(stream: &mut RowStream, sent: &[u8], cuts: &[usize], limit: usize) -> Result<Vec<Vec<u8>>, WireError> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let (mut used, mut received) = (0, 0);
    let mut cuts = cuts.iter().cycle();
    loop {
        let (taken, step) = stream.take(&sent[used..received], &mut part, limit)?;
        used += taken;
        match step {
            Step::Starved if received == sent.len() => break,
            Step::Starved => received = sent.len().min(received + cuts.next().unwrap()),
            Step::Full => parts.push(std::mem::take(&mut part)),
            Step::Message => break,
        }
    }
    parts.push(part);
    Ok(parts)
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_rows(
        sent in streams(),
        cuts in prop::collection::vec(1..90_usize, 1..6),
        limit in 1..200_usize,
    ) {
        let mut stream = RowStream::new(sent.format);
        let parts = take_all(&mut stream, &sent.sent, &cuts, limit).unwrap();
        prop_assert_eq!(parts.concat(), sent.rows.concat());
        prop_assert_eq!(stream.rows(), sent.rows.len() as u64);
        prop_assert!(stream.is_whole());
        // Each part ends with a row, and holds no more of them than the limit asks for.
        let mut rows = sent.rows.iter();
        for part in parts {
            let mut bytes = 0;
            while bytes < part.len() {
                prop_assert!(bytes < limit);
                bytes += rows.next().unwrap().len();
            }
            prop_assert_eq!(bytes, part.len());
        }
    }

    #[test]
    fn a_stream_that_was_cut_is_not_taken_for_a_whole_one(sent in streams(), keep in 0.0..1.0_f64) {
        // Without the last message: text has no end of its own but CopyDone.
        let whole = sent.sent.len() - HEADER;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let kept = (whole as f64 * keep) as usize;
        let mut stream = RowStream::new(sent.format);
        let parts = take_all(&mut stream, &sent.sent[..kept], &[7], usize::MAX).unwrap();
        prop_assert!(sent.rows.concat().starts_with(&parts.concat()));
        if sent.format != Format::Text {
            prop_assert!(!stream.is_whole());
        }
    }

    #[test]
    fn nonsense_is_an_error_or_waits_for_more(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_binary in any::<bool>(),
        valid_tags in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if valid_tags {
            for chunk in bytes.chunks_mut(9) {
                chunk[0] = COPY_DATA_TAG;
                for zero in chunk.iter_mut().skip(1).take(3) {
                    *zero = 0;
                }
            }
        }
        let format = if is_binary { Format::Binary { fields: 1 } } else { Format::Text };
        let _ = take_all(&mut RowStream::new(format), &bytes, &[3, 50], 20);
    }
}

#[test]
fn what_is_no_copy_stream_is_refused() {
    let binary = Format::Binary { fields: 1 };
    let with = |body: &[u8]| message(COPY_DATA_TAG, &[&header(&[])[..], body].concat());
    let mut flags = with(&[0, 1, 9]);
    flags[HEADER + SIGNATURE.len() + 1] = 1;
    let mut extension = with(&[0, 1, 9]);
    extension[HEADER + SIGNATURE.len() + 4] = 0xff;
    let cases = [
        (Format::Text, message(COPY_DATA_TAG, b"two\nlines"), "not one line"),
        (Format::Text, message(COPY_DATA_TAG, b""), "has no end"),
        (Format::Text, vec![COPY_DATA_TAG, 0, 0, 0, 3], "shorter than its header"),
        (
            Format::Text,
            vec![COPY_DATA_TAG, 0xff, 0, 0, 0],
            "shorter than its header",
        ),
        (
            Format::Text,
            vec![COPY_DATA_TAG, 0x7f, 0, 0, 0],
            "longer than a row can be",
        ),
        (binary, message(COPY_DATA_TAG, b"1\n"), "does not begin with its header"),
        (
            binary,
            message(COPY_DATA_TAG, &[b'x'; 30]),
            "does not begin with its header",
        ),
        (binary, with(b""), "no field count"),
        (binary, with(&[0, 2, 9]), "has 2 fields, and 1 were announced"),
        (binary, with(&[0xff, 0xff, 9]), "has -1 fields"),
        (binary, flags, "flags that are not known"),
        (binary, extension, "a length that cannot be"),
        (
            binary,
            [with(&[0xff, 0xff]), message(COPY_DATA_TAG, &[0, 1, 9])].concat(),
            "behind its trailer",
        ),
    ];
    for (format, bytes, expected) in cases {
        let error = take_all(&mut RowStream::new(format), &bytes, &[1], 9).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
