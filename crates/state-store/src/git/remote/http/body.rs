//! What is sent with a request: a few texts of known length, handed over in pieces.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// So much is given to a connection at once: it keeps a copy of what it has not sent.
const PIECE_BYTES: usize = 64 << 10;

/// The texts, which are shared and not copied.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub(super) fn new(texts: impl IntoIterator<Item = Bytes>) -> Self {
        Self(texts.into_iter().filter(|text| !text.is_empty()).collect())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.0.front_mut() else { return Poll::Ready(None) };
        let piece = first.split_to(first.len().min(PIECE_BYTES));
        if first.is_empty() {
            self.0.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|text| text.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_has_a_known_length_and_arrives_in_pieces() {
        let long = Bytes::from(vec![7; 3 * PIECE_BYTES + 1]);
        let mut body = Pieces::new([Bytes::from_static(b"ab"), Bytes::new(), long.clone()]);
        assert_eq!(body.size_hint().exact(), Some(long.len() as u64 + 2));
        let mut sizes = Vec::new();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.expect("infallible").into_data().expect("data");
            sizes.push(piece.len());
            whole.extend_from_slice(&piece);
        }
        assert_eq!(sizes, [2, PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 1]);
        assert!(body.is_end_stream() && whole[..2] == *b"ab" && whole[2..] == long[..]);
        assert!(Pieces::default().is_end_stream());
    }
}
