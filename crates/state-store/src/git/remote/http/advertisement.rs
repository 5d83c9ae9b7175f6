//! What a server says before it is asked for anything: its branches, and what it can do.

use bytes::Bytes;
use gix::ObjectId;
use hyper::body::Body;

use super::packet::{Broken, Packet, Packets};
use super::{Fault, Unable};
use crate::error::Trouble;

/// What a server advertises, as far as it matters for one branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::git::remote) struct Advertisement {
    /// The head of the branch, if there is one.
    pub(in crate::git::remote) head: Option<ObjectId>,
    /// There are branches, this or others.
    pub(in crate::git::remote) has_branches: bool,
    /// What it can do, separated by spaces.
    capabilities: String,
}

impl Advertisement {
    /// Reads it to its end, and hands each line to `note`.
    pub(super) async fn read<B>(
        packets: &mut Packets<B>,
        branch: &str,
        mut note: impl FnMut(&[u8]),
    ) -> Result<Self, Fault>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut read = Self::default();
        let (mut has_heading, mut is_first) = (false, true);
        loop {
            let line = match packets.next().await? {
                Some(Packet::Data(line)) => line,
                Some(Packet::Flush) if has_heading && is_first => {
                    has_heading = false;
                    continue;
                }
                Some(Packet::Flush) => return Ok(read),
                None => return Err(Broken::early().into()),
            };
            note(&line);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if let Some(said) = line.strip_prefix(b"ERR ") {
                return Err(Fault::Refusal(String::from_utf8_lossy(said).into_owned()));
            }
            if is_first && line.starts_with(b"# service=") {
                has_heading = true;
                continue;
            }
            let reference = match line.iter().position(|byte| *byte == 0).filter(|_| is_first) {
                Some(end) => {
                    read.capabilities = String::from_utf8_lossy(&line[end + 1..]).into_owned();
                    &line[..end]
                }
                None => line,
            };
            if is_first && read.value("object-format").is_some_and(|format| format != "sha1") {
                return Err(Fault::Unable(Unable::ObjectFormat));
            }
            is_first = false;
            read.add(reference, branch).ok_or(Fault::Unable(Unable::Answer))?;
        }
    }

    fn add(&mut self, reference: &[u8], branch: &str) -> Option<()> {
        if reference.starts_with(b"shallow ") {
            return Some(());
        }
        let (id, name) = reference.split_at_checked(40)?;
        let id = ObjectId::from_hex(id).ok()?;
        let name = name.strip_prefix(b" ")?;
        if let Some(name) = name.strip_prefix(b"refs/heads/") {
            self.has_branches = true;
            if name == branch.as_bytes() {
                self.head = Some(id);
            }
        }
        Some(())
    }

    /// Returns the same with another head of the branch.
    pub(super) fn with_head(self, head: Option<ObjectId>) -> Self {
        Self { head, ..self }
    }

    /// Tells whether the server can do something.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.split(' ').any(|found| found == capability)
    }

    /// Returns what of it a push makes use of. Nothing is asked for that was not offered.
    pub(super) fn wanted(&self, agent: &str) -> String {
        let words = ["report-status", "side-band-64k", "quiet"].into_iter().filter(|word| self.can(word));
        let agent = self.value("agent").map(|_| format!("agent={agent}"));
        words.map(str::to_owned).chain(agent).collect::<Vec<_>>().join(" ")
    }

    fn value(&self, capability: &str) -> Option<&str> {
        let mut pairs = self.capabilities.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, value)| (name == capability).then_some(value))
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Malformed => Self::Unable(Unable::Answer),
            Broken::Refusal(said) => Self::Refusal(said),
            Broken::Lost(reason) => Self::Trouble(Trouble::Unreachable(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{framed, tests::body};
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";
    const NONE: &str = "0000000000000000000000000000000000000000";

    async fn read(text: &str, size: usize) -> Result<Advertisement, Fault> {
        Advertisement::read(&mut Packets::new(body(text.as_bytes(), size, true)), "main", |_| {}).await
    }

    #[tokio::test]
    async fn the_branch_and_the_capabilities_are_found_among_all_that_is_advertised() {
        let heading = framed("# service=git-receive-pack\n") + "0000";
        let with = "\0 report-status side-band-64k object-format=sha1 agent=git/2.39.5\n";
        let id = ObjectId::from_hex(TWO.as_bytes()).expect("an id");
        for (lines, head, has_branches) in [
            (vec![format!("{ONE} refs/heads/a/main{with}"), format!("{TWO} refs/heads/main\n")], Some(id), true),
            (vec![format!("{TWO} refs/heads/main{with}"), format!("{ONE} refs/tags/main")], Some(id), true),
            (vec![format!("{ONE} refs/tags/v1{with}"), format!("{TWO} refs/tags/v1^{{}}\n")], None, false),
            (vec![format!("{ONE} .have{with}"), format!("{TWO} refs/heads/main2\n")], None, true),
            (vec![format!("{NONE} capabilities^{{}}{with}"), format!("shallow {ONE}\n")], None, false),
        ] {
            let lines: String = lines.iter().map(|line| framed(line)).collect();
            for (text, size) in [(format!("{heading}{lines}0000"), 1), (format!("{lines}0000more"), 1000)] {
                let read = read(&text, size).await.expect("understood");
                assert_eq!((read.head, read.has_branches), (head, has_branches), "{text}");
                assert!(read.can("report-status") && !read.can("report") && !read.can("atomic"), "{read:?}");
                assert_eq!(read.wanted("git/x"), "report-status side-band-64k agent=git/x");
            }
        }
        assert_eq!(read("0000", 9).await.expect("nothing"), Advertisement::default());
        assert_eq!(Advertisement::default().wanted("git/x"), "");
    }

    #[tokio::test]
    async fn what_is_not_understood_is_left_to_git_and_what_is_cut_off_is_not_believed() {
        let wide = ONE.repeat(2)[..64].to_owned();
        for (text, expected) in [
            (framed(&format!("{wide} refs/heads/main\0object-format=sha256\n")), Fault::Unable(Unable::ObjectFormat)),
            (framed(&format!("{wide} refs/heads/main\n")), Fault::Unable(Unable::Answer)),
            (framed("version 1\n"), Fault::Unable(Unable::Answer)),
            (framed(&"é".repeat(30)), Fault::Unable(Unable::Answer)),
            ("<!DOCTYPE html>".to_owned(), Fault::Unable(Unable::Answer)),
            (framed("ERR access denied\n"), Fault::Refusal("access denied".to_owned())),
            (framed(&format!("{ONE} refs/heads/main\0\n")), Broken::early().into()),
            (framed("# service=git-receive-pack\n") + "0000", Broken::early().into()),
            (String::new(), Broken::early().into()),
        ] {
            assert_eq!(read(&text, 3).await.expect_err("not understood"), expected, "{text}");
        }
    }
}
