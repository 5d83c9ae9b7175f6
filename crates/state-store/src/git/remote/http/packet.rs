//! Packet lines: the frames of git's protocols, read from a body as it arrives.

use bytes::{Buf, Bytes, BytesMut};
use gix_packetline::PacketLineRef;
use gix_packetline::decode::{self, Stream};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::connection::last_cause;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Bytes),
    /// The end of a part.
    Flush,
}

/// Why there is no further frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// What arrives does not have the form of packet lines.
    Malformed,
    /// The server says why it gives up.
    Refusal(String),
    /// The connection was lost, or the body ends in the middle of a frame.
    Lost(String),
}

impl Broken {
    /// An answer that ends before its end.
    pub(super) fn early() -> Self {
        Self::Lost("the server's answer ends in the middle".to_owned())
    }
}

/// The frames of a body. No more of it is kept than one frame and what arrived together with its end.
pub(super) struct Packets<B> {
    body: B,
    arrived: BytesMut,
}

impl<B> Packets<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Fault>,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, arrived: BytesMut::new() }
    }

    /// Returns the next frame, `None` if the body ends before it begins.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>, Broken> {
        loop {
            if let Some(packet) = take(&mut self.arrived)? {
                return Ok(Some(packet));
            }
            match self.body.frame().await {
                None if self.arrived.is_empty() => return Ok(None),
                None => return Err(Broken::early()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.arrived.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Broken::Lost(last_cause(&*error.into()))),
            }
        }
    }

    /// Reads what is left, so that the connection serves for another request.
    pub(super) async fn finish(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

/// Takes a frame from the front, `None` if it is not complete.
pub(super) fn take(arrived: &mut BytesMut) -> Result<Option<Packet>, Broken> {
    let (is_data, length) = match decode::streaming(arrived) {
        Ok(Stream::Incomplete { .. }) => return Ok(None),
        Ok(Stream::Complete { line: PacketLineRef::Data(_), bytes_consumed }) => (true, bytes_consumed),
        Ok(Stream::Complete { line: PacketLineRef::Flush, bytes_consumed }) => (false, bytes_consumed),
        // Other marks belong to versions of the protocol that were not asked for.
        Ok(Stream::Complete { .. }) | Err(_) => return Err(Broken::Malformed),
    };
    let mut frame = arrived.split_to(length).freeze();
    if !is_data {
        return Ok(Some(Packet::Flush));
    }
    frame.advance(4);
    Ok(Some(Packet::Data(frame)))
}

/// Returns a frame with this text.
pub(super) fn framed(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

#[cfg(test)]
pub(super) mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    type Pieces = futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Fault>>>;

    /// A body that arrives in pieces of this size; one that is not whole ends with a lost connection.
    pub(in crate::git::remote::http) fn body(bytes: &[u8], size: usize, is_whole: bool) -> StreamBody<Pieces> {
        let pieces = bytes.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
        let mut pieces: Vec<Result<_, Fault>> = pieces.collect();
        if !is_whole {
            pieces.push(Err("the line was cut".into()));
        }
        StreamBody::new(futures::stream::iter(pieces))
    }

    async fn read(bytes: &[u8], size: usize) -> (Vec<Packet>, Option<Broken>) {
        let mut packets = Packets::new(body(bytes, size, true));
        let mut read = Vec::new();
        loop {
            match packets.next().await {
                Ok(Some(packet)) => read.push(packet),
                Ok(None) => return (read, None),
                Err(broken) => return (read, Some(broken)),
            }
        }
    }

    #[tokio::test]
    async fn frames_are_read_however_they_arrive() {
        let data = |text: &'static str| Packet::Data(Bytes::from(text));
        let text = [framed("first\n"), "0000".to_owned(), framed("x"), framed("0000"), "0000".to_owned()].concat();
        for size in [1, 2, 3, 4, 5, 7, 1000] {
            let (read, broken) = read(text.as_bytes(), size).await;
            assert_eq!(read, [data("first\n"), Packet::Flush, data("x"), data("0000"), Packet::Flush], "{size}");
            assert_eq!(broken, None);
        }
        let longest = "x".repeat(65_516);
        let (read, broken) = read(framed(&longest).as_bytes(), 1000).await;
        assert_eq!((read, broken), (vec![Packet::Data(Bytes::from(longest))], None));
    }

    #[tokio::test]
    async fn what_is_cut_off_or_no_frame_at_all_is_told_apart() {
        for (text, expected) in [
            ("", None),
            ("0", Some(Broken::early())),
            ("0009ab", Some(Broken::early())),
            ("fff0ab", Some(Broken::early())),
            // Longer than any frame may be: nothing is collected.
            ("ffff", Some(Broken::Malformed)),
            ("<htm", Some(Broken::Malformed)),
            ("-001", Some(Broken::Malformed)),
            ("0003", Some(Broken::Malformed)),
            ("0004", Some(Broken::Malformed)),
            ("0001", Some(Broken::Malformed)),
            ("\0\0\0\0", Some(Broken::Malformed)),
            ("é0\0", Some(Broken::Malformed)),
        ] {
            for size in [1, 1000] {
                let (read, broken) = read(text.as_bytes(), size).await;
                assert_eq!((read.as_slice(), &broken), (&[][..], &expected), "{text:?}");
            }
        }
        let mut packets = Packets::new(body(b"0009a", 2, false));
        assert_eq!(packets.next().await, Err(Broken::Lost("the line was cut".to_owned())));
    }
}
