//! Texts for people: cut to what their place holds, and short lists of names.

/// Longest message of a condition.
const MESSAGE_BYTES_MAX: usize = 32_768;

/// Longest cause that is copied into a condition: what is needed to act, not a schema of a thousand lines.
const CAUSE_BYTES_MAX: usize = 1024;

/// Names in a list; of the others only the number is told.
const NAMES_MAX: usize = 5;

/// Returns the beginning of a text, at most `bytes` long, cut between two characters.
pub fn truncated(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Cuts a text to what a condition holds.
pub(crate) fn message(mut text: String) -> String {
    text.truncate(truncated(&text, MESSAGE_BYTES_MAX).len());
    text
}

/// Cuts an error to what is needed to act.
pub(crate) fn cause(text: &str) -> &str {
    truncated(text, CAUSE_BYTES_MAX)
}

/// Returns a text of somebody as one line of at most so many bytes, without what a terminal would act on.
pub(crate) fn line(text: &str, bytes_max: usize) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let cut = truncated(&line, bytes_max);
    if cut.len() < line.len() { format!("{cut}…") } else { line }
}

/// Returns the first few names in their order, and how many there are beside them.
pub(crate) fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncated("short", 1024), "short");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(message("é".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX);
        assert_eq!(message(format!("a{}", "é".repeat(MESSAGE_BYTES_MAX))).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(cause(&"x".repeat(2000)).len(), CAUSE_BYTES_MAX);
    }

    #[test]
    fn of_many_names_the_first_are_shown_and_the_others_counted() {
        let names = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        assert_eq!(listed(&names(0)), "");
        assert_eq!(listed(&names(5)), "0, 1, 2, 3, 4");
        assert_eq!(listed(&names(7)), "0, 1, 2, 3, 4 and 2 more");
    }
}
