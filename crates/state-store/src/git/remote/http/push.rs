//! Pushing a pack that is at hand: one request to a server that is known, and a question before it where that saves more.
//!
//! A push names the head that it was built on, and the server refuses it if the branch has another one. So there is nothing
//! to be asked first of a server that has said before what it takes, except for what is too much to be sent in vain.

use bytes::Bytes;
use gix::ObjectId;
use http::{Request, StatusCode, header};

use super::packet::{self, Packets, framed};
use super::report::{Bands, Outcome, Report};
use super::{Advertisement, Basic, Fault, Http, Lost, Pieces, Service, answer, expect, redacted, trace, uri, within};
use crate::error::Trouble;
use crate::git::Published;

/// So much is sent on the chance that the branch has not moved; before more, the server is asked.
const UNASKED_BYTES_MAX: usize = 1 << 20;
/// What is told of a push that is more than a server, or a proxy before it, takes at once.
const TOO_LARGE: &str = "the server answers 413, the request is too large for it";
/// This program, in one word.
const AGENT: &str = concat!("git/", env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"));

/// A commit for a branch, with the objects that the remote lacks.
pub(in crate::git::remote) struct Push {
    /// The head that it was built on.
    pub(in crate::git::remote) head: Option<ObjectId>,
    pub(in crate::git::remote) id: ObjectId,
    pub(in crate::git::remote) pack: Bytes,
}

/// What the server at an address has said that it takes.
pub(super) struct Offer {
    address: String,
    said: Advertisement,
}

impl Offer {
    pub(super) fn new(address: &str, said: Advertisement) -> Self {
        Self { address: address.to_owned(), said }
    }

    /// Returns what the server would say if nothing but the head had changed since.
    fn to(self, address: &str, push: &Push) -> Option<Advertisement> {
        let is_enough = self.address == address && push.pack.len() <= UNASKED_BYTES_MAX;
        is_enough.then(|| self.said.with_head(push.head))
    }
}

impl Http {
    /// Pushes, if the branch still has the head that the push is for.
    pub(in crate::git::remote) async fn push(
        &mut self,
        address: &str,
        basic: Option<&Basic>,
        push: &Push,
    ) -> Result<Published, Fault> {
        let (deadline, mut report) = (self.deadline, Report::default());
        let mut seen = self.offer.take().and_then(|offer| offer.to(address, push));
        let pushed = match within(deadline, self.try_push(address, basic, push, &mut seen, &mut report)).await {
            // What the server runs once it has taken a push may take its time, and alters nothing.
            Err(Fault::Trouble(Trouble::Timeout(_))) if report.is_accepted() => Ok(Published::Accepted),
            pushed => pushed,
        };
        // After anything else the server is asked again.
        if matches!(pushed, Ok(Published::Accepted | Published::Moved)) {
            self.offer = seen.map(|said| Offer::new(address, said));
        }
        pushed
    }

    /// Pushes to a server of which this was seen, or that is asked first; what is seen meanwhile is noted.
    async fn try_push(
        &mut self,
        address: &str,
        basic: Option<&Basic>,
        push: &Push,
        noted: &mut Option<Advertisement>,
        report: &mut Report,
    ) -> Result<Published, Fault> {
        let (mut is_asked, mut is_first) = (false, true);
        loop {
            let seen = match noted {
                Some(seen) => &*seen,
                None => {
                    is_asked = true;
                    noted.insert(self.ask(address, basic, Service::ReceivePack).await?)
                }
            };
            if seen.head == Some(push.id) {
                return Ok(Published::Accepted);
            }
            if seen.head != push.head {
                return Ok(Published::Moved);
            }
            let (told, is_stale) = match self.send(address, basic, push, seen, report).await {
                Ok(Outcome::Accepted) => return Ok(Published::Accepted),
                Ok(Outcome::Refused { reason, said }) => {
                    let (reason, said) = (redacted(basic, &reason), redacted(basic, &said));
                    match answer::refusal(&reason, &said, &self.branch) {
                        // Not every server says in git's words that its branch has moved.
                        Err(refused @ Trouble::Refused { .. }) => (Err(refused), false),
                        told => return told.map_err(Fault::from),
                    }
                }
                Ok(Outcome::Unclear { said }) => (Ok(Published::Unsettled(silent(&redacted(basic, &said)))), false),
                Err(Lost { fault: Fault::Trouble(trouble), is_stale })
                    if matches!(trouble, Trouble::Unreachable(_) | Trouble::ServerFailed(_)) =>
                {
                    (Err(trouble), is_stale)
                }
                // Only from where it is asked a server sends to another address.
                Err(Lost { fault: Fault::Redirected(_), .. }) if !is_asked => {
                    *noted = None;
                    continue;
                }
                Err(lost) => return Err(lost.fault),
            };
            // What became of it can be seen.
            is_asked = true;
            match (self.ask(address, basic, Service::ReceivePack).await, told) {
                (Ok(now), told) if now.head == push.head && !(is_stale && is_first) => {
                    return told.map_err(Fault::from);
                }
                // A connection that was kept may have been closed before the push came: it is sent once more.
                (Ok(now), _) => *noted = Some(now),
                (Err(fault), Ok(_)) => return Err(fault),
                // That it does not know us is why it has not listened.
                (Err(fault @ Fault::Trouble(Trouble::Unauthorized)), Err(_)) => return Err(fault),
                (Err(_), Err(trouble)) => return Err(trouble.into()),
            }
            is_first = false;
        }
    }

    /// Sends the command and the objects, and reads what the server says to it.
    async fn send(
        &mut self,
        address: &str,
        basic: Option<&Basic>,
        push: &Push,
        seen: &Advertisement,
        report: &mut Report,
    ) -> Result<Outcome, Lost> {
        *report = Report::default();
        let zero = ObjectId::null(gix::hash::Kind::Sha1);
        let (old, new) = (push.head.unwrap_or(zero), push.id);
        let command = format!("{old} {new} refs/heads/{}\0 {}", self.branch, seen.wanted(AGENT));
        if self.is_traced {
            trace(Service::ReceivePack.name(), '>', command.as_bytes());
        }
        let body = Pieces::new([Bytes::from(framed(&command) + "0000"), push.pack.clone()]);
        let request = Request::post(uri(address, Service::ReceivePack.name())?)
            .header(header::CONTENT_TYPE, "application/x-git-receive-pack-request")
            .header(header::ACCEPT, "application/x-git-receive-pack-result");
        let response = self.exchange(request, body, basic).await?;
        if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
            // About this push: a part of it may be taken.
            let (branch, message) = (self.branch.clone(), TOO_LARGE.to_owned());
            return Err(Fault::from(Trouble::Refused { branch, message }).into());
        }
        let body = match expect(response, "application/x-git-receive-pack-result", basic).await {
            Err(Fault::Trouble(Trouble::NotARepository(_))) => return Ok(report.outcome()),
            body => body?,
        };
        let bands = if seen.can("side-band-64k") { Bands::Side } else { Bands::None };
        let mut packets = Packets::new(body);
        let outcome = match report.read(&mut packets, bands, &self.branch).await {
            Err(packet::Broken::Malformed) => return Ok(report.outcome()),
            outcome => outcome.map_err(Fault::from)?,
        };
        packets.finish().await;
        if self.is_traced {
            trace(Service::ReceivePack.name(), '<', format!("{outcome:?}").as_bytes());
        }
        Ok(outcome)
    }
}

/// Says that a server does not answer a push; it may have said something else.
fn silent(said: &str) -> Trouble {
    let said = answer::remote_text(said);
    let rest = if said.is_empty() { said } else { format!(": {said}") };
    Trouble::ServerFailed(format!("it does not say what became of the push{rest}"))
}
