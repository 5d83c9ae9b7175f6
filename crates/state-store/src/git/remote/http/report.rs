//! What a server says became of a push, and what its hooks say meanwhile.

use bytes::{Bytes, BytesMut};
use hyper::body::Body;

use super::packet::{self, Broken, Packet, Packets};

/// How much of what hooks say is kept; the rest is read and dropped.
const SAID_BYTES_MAX: usize = 256 << 10;

/// How the server's words are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bands {
    /// The report stands alone.
    None,
    /// The first byte of each frame says what it is part of.
    Side,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    Refused {
        /// The server's reason.
        reason: String,
        /// What was said beside, in lines that start with `remote:`.
        said: String,
    },
    /// The server does not tell.
    Unclear {
        /// What was said beside.
        said: String,
    },
}

/// What a server has told so far.
#[derive(Default)]
pub(super) struct Report {
    /// What is wrong with the objects; empty if nothing is.
    unpacking: Option<String>,
    /// Why the branch is refused; empty if it is not.
    branch: Option<String>,
    said: Vec<u8>,
}

impl Report {
    /// Reads it to its end. What was told before a connection was lost counts.
    pub(super) async fn read<B>(
        &mut self,
        packets: &mut Packets<B>,
        bands: Bands,
        branch: &str,
    ) -> Result<Outcome, Broken>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ended = self.collect(packets, bands, branch).await;
        match (self.outcome(), ended) {
            (Outcome::Unclear { .. }, Err(broken)) => Err(broken),
            (outcome, _) => Ok(outcome),
        }
    }

    /// Tells whether the branch has what was pushed, whatever else comes.
    pub(super) fn is_accepted(&self) -> bool {
        self.outcome() == Outcome::Accepted
    }

    async fn collect<B>(&mut self, packets: &mut Packets<B>, mut bands: Bands, branch: &str) -> Result<(), Broken>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // The report within the first band is made of frames too, which begin and end anywhere in those around them.
        let mut inner = BytesMut::new();
        while let Some(Packet::Data(frame)) = packets.next().await? {
            refusal(&frame)?;
            if frame.starts_with(b"unpack ") {
                // Not every server uses the bands that it has offered.
                bands = Bands::None;
            }
            if bands == Bands::None {
                self.line(&frame, branch);
                continue;
            }
            match frame.split_first() {
                Some((1, part)) => {
                    inner.extend_from_slice(part);
                    while let Some(packet) = packet::take(&mut inner)? {
                        if let Packet::Data(line) = packet {
                            refusal(&line)?;
                            self.line(&line, branch);
                        }
                    }
                }
                Some((2 | 3, part)) => {
                    let room = SAID_BYTES_MAX.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&part[..part.len().min(room)]);
                }
                _ => return Err(Broken::Malformed),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], branch: &str) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\n');
        let mut words = line.splitn(3, ' ');
        let own = |name: Option<&str>| name.and_then(|name| name.strip_prefix("refs/heads/")) == Some(branch);
        match words.next() {
            Some("unpack") => {
                let result = line.strip_prefix("unpack ").unwrap_or_default();
                self.unpacking = Some(if result == "ok" { String::new() } else { result.to_owned() });
            }
            Some("ok") if own(words.next()) => self.branch = Some(String::new()),
            Some("ng") if own(words.next()) => {
                let reason = words.next().unwrap_or_default().trim();
                self.branch = Some(if reason.is_empty() { "refused".to_owned() } else { reason.to_owned() });
            }
            // Of options, and of what comes with later versions.
            _ => {}
        }
    }

    /// Returns what it comes to. A branch counts as accepted only if the objects are said to be.
    pub(super) fn outcome(&self) -> Outcome {
        let reason = match (self.unpacking.as_deref(), self.branch.as_deref()) {
            (Some(""), Some("")) => return Outcome::Accepted,
            (_, Some(reason)) if !reason.is_empty() => reason,
            (Some(wrong), None) if !wrong.is_empty() => "unpacker error",
            _ => return Outcome::Unclear { said: self.said() },
        };
        let mut said = self.said();
        if let Some(wrong) = self.unpacking.as_deref().filter(|wrong| said.is_empty() && !wrong.is_empty()) {
            said = format!("remote: {wrong}\n");
        }
        Outcome::Refused { reason: reason.to_owned(), said }
    }

    /// Returns what hooks have said, in lines that start with `remote:`.
    fn said(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        // Progress is written over itself.
        let lines = said.split(['\n', '\r']).filter(|line| !line.trim().is_empty());
        lines.map(|line| format!("remote: {line}\n")).collect()
    }
}

/// Looks for a line with which servers give up, whatever they were about to say.
fn refusal(line: &[u8]) -> Result<(), Broken> {
    match line.strip_prefix(b"ERR ") {
        Some(said) => Err(Broken::Refusal(String::from_utf8_lossy(said).trim_end().to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{framed, tests::body};
    use super::*;

    async fn read(text: &str, bands: Bands, is_whole: bool) -> Vec<Result<Outcome, Broken>> {
        let mut outcomes = Vec::new();
        for size in [1, 3, 1000] {
            let mut packets = Packets::new(body(text.as_bytes(), size, is_whole));
            outcomes.push(Report::default().read(&mut packets, bands, "main").await);
        }
        outcomes
    }

    fn refused(reason: &str, said: &str) -> Outcome {
        Outcome::Refused { reason: reason.to_owned(), said: said.to_owned() }
    }

    fn unclear() -> Outcome {
        Outcome::Unclear { said: String::new() }
    }

    #[tokio::test]
    async fn a_report_says_what_became_of_the_branch() {
        for (lines, expected) in [
            (&["unpack ok\n", "ok refs/heads/main\n"][..], Outcome::Accepted),
            (&["unpack ok", "ok refs/heads/main"], Outcome::Accepted),
            (&["unpack ok\n", "ok refs/heads/main\n", "option refname refs/heads/x\n"], Outcome::Accepted),
            (&["unpack ok\n", "ng refs/heads/main hook declined\n"], refused("hook declined", "")),
            (&["unpack ok\n", "ng refs/heads/main\n"], refused("refused", "")),
            (&["unpack ok\n", "ok refs/heads/other\n", "ng refs/tags/main x\n"], unclear()),
            (
                &["unpack index-pack abnormal exit\n", "ng refs/heads/main unpacker error\n"],
                refused("unpacker error", "remote: index-pack abnormal exit\n"),
            ),
            (&["unpack no space\n"], refused("unpacker error", "remote: no space\n")),
            (&["unpack no space\n", "ok refs/heads/main\n"], unclear()),
            (&["unpack ok\n"], unclear()),
            (&["ok refs/heads/main\n"], unclear()),
            (&["ng refs/heads/main hook declined\n"], refused("hook declined", "")),
            (&["\n", "ng", "", " "], unclear()),
            (&[], unclear()),
        ] {
            let inner: String = lines.iter().filter(|line| !line.is_empty()).map(|line| framed(line)).collect();
            let inner = inner + "0000";
            for outcome in read(&inner, Bands::None, true).await {
                assert_eq!(outcome.as_ref(), Ok(&expected), "{lines:?}");
            }
            // Cut into frames of a band without regard to its own.
            let pieces: Vec<String> = inner.as_bytes().chunks(5).map(|piece| framed(&banded(1, piece))).collect();
            for outcome in read(&(pieces.concat() + &framed("\u{1}") + "0000"), Bands::Side, true).await {
                assert_eq!(outcome.as_ref(), Ok(&expected), "{lines:?}");
            }
        }
    }

    fn banded(band: u8, text: &[u8]) -> String {
        format!("{}{}", char::from(band), std::str::from_utf8(text).expect("UTF-8"))
    }

    #[tokio::test]
    async fn what_hooks_say_is_put_together_again() {
        let report = framed("unpack ok\n") + &framed("ng refs/heads/main pre-receive hook declined\n") + "0000";
        let text = [
            framed(&banded(2, b"branch ma")),
            framed(&banded(2, b"in is\n\nprotected\rsee the wiki")),
            framed(&banded(1, report.as_bytes())),
            framed(&banded(3, b" page\n")),
            "0000".to_owned(),
        ];
        let said = "remote: branch main is\nremote: protected\nremote: see the wiki page\n";
        for outcome in read(&text.concat(), Bands::Side, true).await {
            assert_eq!(outcome, Ok(refused("pre-receive hook declined", said)));
        }
        // A hook that never stops talking.
        let talk: String = (0..40).map(|_| framed(&banded(2, &[b'x'; 60_000]))).collect();
        for outcome in read(&(talk + &text.concat()), Bands::Side, true).await {
            let Ok(Outcome::Refused { said, .. }) = outcome else { panic!("{outcome:?}") };
            assert!(said.len() <= SAID_BYTES_MAX + 16, "{}", said.len());
        }
    }

    #[tokio::test]
    async fn what_was_told_before_the_line_was_cut_counts_and_nothing_else_does() {
        let told = framed("unpack ok\n") + &framed("ok refs/heads/main\n");
        for outcome in read(&told, Bands::None, false).await {
            assert_eq!(outcome, Ok(Outcome::Accepted));
        }
        let lost = Broken::Lost("the line was cut".to_owned());
        for outcome in read(&told[..told.len() - 3], Bands::None, false).await {
            assert_eq!(outcome.as_ref(), Err(&lost));
        }
        for outcome in read(&told[..told.len() - 3], Bands::None, true).await {
            assert_eq!(outcome, Err(Broken::early()));
        }
        for (text, bands) in [
            ("<html>".to_owned(), Bands::None),
            (framed("\u{4}x"), Bands::Side),
            (framed(&banded(1, b"<htm")), Bands::Side),
        ] {
            for outcome in read(&text, bands, true).await {
                assert_eq!(outcome, Err(Broken::Malformed), "{text:?}");
            }
        }
        let error = framed("ERR try later\n");
        for outcome in read(&(framed("unpack ok\n") + &framed("ng refs/heads/main locked\n")), Bands::Side, true).await
        {
            assert_eq!(outcome, Ok(refused("locked", "")), "the report stands alone");
        }
        for (text, bands) in [
            (error.clone(), Bands::None),
            (error.clone(), Bands::Side),
            (framed(&banded(1, error.as_bytes())), Bands::Side),
        ] {
            for outcome in read(&text, bands, true).await {
                assert_eq!(outcome, Err(Broken::Refusal("try later".to_owned())), "{text:?}");
            }
        }
        for outcome in read(&(framed(&banded(2, b"fatal: no memory\n")) + "0000"), Bands::Side, true).await {
            assert_eq!(outcome, Ok(Outcome::Unclear { said: "remote: fatal: no memory\n".to_owned() }));
        }
        for outcome in read("", Bands::Side, true).await {
            assert_eq!(outcome, Ok(unclear()));
        }
    }
}
