//! For how long a server asks to be left alone: `Retry-After`, which git itself reads nowhere, from the headers that it traces.

use std::time::Duration;

use crate::retry_after::parse;

/// Returns what the last answer in a trace of headers asks for.
pub(in crate::git) fn retry_after(trace: &str) -> Option<Duration> {
    let (mut asked, mut date) = (None, None);
    for line in trace.lines().filter_map(|line| line.split_once("<= Recv header: ").map(|(_, line)| line.trim())) {
        if line.starts_with("HTTP/") {
            (asked, date) = (None, None);
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "retry-after" => asked = Some(value),
            "date" => date = Some(value),
            _ => {}
        }
    }
    parse(asked?, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_counts_in_seconds_or_as_a_date() {
        let trace = |headers: &[&str]| -> String {
            headers.iter().map(|header| format!("10:00:00.1 http.c:700 <= Recv header: {header}\r\n")).collect()
        };
        let (date, later) = ("Date: Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After: Wed, 21 Oct 2015 07:29:30 GMT");
        let earlier = "Retry-After: Wed, 21 Oct 2015 07:00:00 GMT";
        for (headers, expected) in [
            (&["HTTP/1.1 429", "Retry-After: 30"][..], Some(30)),
            (&["HTTP/2 503", "retry-after:  7 "], Some(7)),
            (&["HTTP/1.1 503", "Retry-After: 30", "HTTP/1.1 503", "Server: x"], None),
            (&["HTTP/1.1 503", "Retry-After: soon"], None),
            (&["HTTP/1.1 503", "Retry-After: -1"], None),
            (&["HTTP/1.1 503", "Retry-After: 99999999999999999999"], None),
            (&["HTTP/1.1 503", date, later], Some(90)),
            (&["HTTP/1.1 503", date, earlier], Some(0)),
            (&["HTTP/1.1 503", earlier], Some(0)),
            (&[], None),
        ] {
            assert_eq!(retry_after(&trace(headers)), expected.map(Duration::from_secs), "{headers:?}");
        }
        assert_eq!(retry_after("=> Send header: Retry-After: 3"), None);
    }
}
