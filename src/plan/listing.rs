//! Lists in sentences: the first of many, and how many more there are. Pure.

/// At most `most` of the texts.
pub(crate) fn few(texts: &[String], most: usize) -> String {
    first_and_more(&texts[..texts.len().min(most)], texts.len())
}

/// The first of so many.
pub(crate) fn first_and_more(first: &[String], count: usize) -> String {
    let first_ones = first.join(", ");
    match count.saturating_sub(first.len()) {
        0 => first_ones,
        more => format!("{first_ones} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let texts: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(few(&texts, 3), "a, b, c");
        assert_eq!(few(&texts, 2), "a, b and 1 more");
        assert_eq!(few(&[], 2), "");
        assert_eq!(first_and_more(&texts, 10), "a, b, c and 7 more");
    }
}
