//! Contents of files as they are kept in Works and WorkPlacements: gzip in base64.
//!
//! # Source
//! `01-api.md` §5.2

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use base64::write::EncoderStringWriter;
use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

/// Says that the file system is not known, as the reference writes it.
const OPERATING_SYSTEM_UNKNOWN: u8 = 255;

/// Why a content could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not base64.
    #[error("content is not base64")]
    Base64(#[from] base64::DecodeError),
    /// Not gzip.
    #[error("content is not gzip")]
    Gzip(#[from] std::io::Error),
    /// Too much.
    #[error("content is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The limit that was given.
        bytes_max: usize,
    },
}

/// Returns the stored form of `content`: the same for the same input, never empty.
pub fn compress(content: &[u8]) -> String {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(OPERATING_SYSTEM_UNKNOWN)
        .write(Vec::with_capacity(content.len() / 4 + 32), Compression::default());
    encoder.write_all(content).expect("writing to a Vec succeeds");
    STANDARD.encode(encoder.finish().expect("writing to a Vec succeeds"))
}

/// Returns the stored form of what a reader has, as [`compress`] would, and how many bytes that were. Neither they nor the
/// compressed ones are ever held as a whole.
///
/// # Errors
/// Those of the reader.
pub fn compress_from(reader: &mut impl Read) -> std::io::Result<(String, u64)> {
    let encoder = EncoderStringWriter::new(&STANDARD);
    let mut encoder =
        GzBuilder::new().mtime(0).operating_system(OPERATING_SYSTEM_UNKNOWN).write(encoder, Compression::default());
    let bytes = std::io::copy(reader, &mut encoder)?;
    Ok((encoder.finish()?.into_inner(), bytes))
}

/// Returns the bytes behind a stored content that is in pieces, which are not put together first: they may be large.
///
/// # Limits
/// As those of [`decompress`].
/// # Errors
/// [`Error`].
pub fn decompress_pieces(pieces: &[&str], bytes_max: usize) -> Result<Vec<u8>, Error> {
    if let [stored] = pieces {
        return decompress(stored, bytes_max);
    }
    let pieces = Pieces { open: b"", rest: pieces };
    inflate(DecoderReader::new(pieces, &STANDARD), bytes_max).map_err(|error| match error {
        Error::Gzip(cause) => match cause.downcast::<base64::DecodeError>() {
            Ok(cause) => Error::Base64(cause),
            Err(cause) => Error::Gzip(cause),
        },
        other => other,
    })
}

/// Returns the bytes behind a stored content; concatenated gzip members are read as one.
///
/// # Limits
/// At most `bytes_max` bytes are returned, and hardly more are ever held.
/// # Errors
/// [`Error`]; the stored form is user data, so every error is possible.
pub fn decompress(stored: &str, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let stored: std::borrow::Cow<'_, str> = match stored.contains(['\n', '\r']) {
        true => stored.replace(['\n', '\r'], "").into(),
        false => stored.into(),
    };
    inflate(STANDARD.decode(stored.as_bytes())?.as_slice(), bytes_max)
}

/// Reads one piece after the other.
struct Pieces<'a> {
    open: &'a [u8],
    rest: &'a [&'a str],
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.open.is_empty()
            && let Some((next, rest)) = self.rest.split_first()
        {
            (self.open, self.rest) = (next.as_bytes(), rest);
        }
        self.open.read(into)
    }
}

fn inflate(compressed: impl Read, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    // One byte more than allowed tells "exactly at the limit" from "beyond it".
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(Error::TooLarge { bytes_max });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_that_of_the_reference() {
        let bytes = STANDARD.decode(compress(b"hello")).unwrap();
        assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    }

    #[test]
    fn an_empty_file_has_a_content() {
        assert!(!compress(b"").is_empty());
        assert_eq!(decompress(&compress(b""), 0).unwrap(), b"");
    }

    #[test]
    fn members_and_line_breaks_are_read_as_one_content() {
        let member = |text: &[u8]| STANDARD.decode(compress(text)).unwrap();
        let both = STANDARD.encode([member(b"one "), member(b"two")].concat());
        let (first, second) = both.split_at(8);
        assert_eq!(decompress(&format!("{first}\r\n{second}\n"), 100).unwrap(), b"one two");
    }

    #[test]
    fn a_content_beyond_the_limit_is_refused() {
        let bomb = compress(&vec![0; 1_000_000]);
        assert!(matches!(decompress(&bomb, 999_999), Err(Error::TooLarge { bytes_max: 999_999 })));
        assert_eq!(decompress(&bomb, 1_000_000).unwrap().len(), 1_000_000);
    }

    #[test]
    fn what_is_read_piece_by_piece_is_stored_as_if_it_were_one() {
        let numbers = (0..300_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes());
        let content: Vec<u8> = numbers.chain(b"text text text\n".repeat(50_000)).collect();
        for content in [&content[..], b"", b"a"] {
            let (stored, bytes) = compress_from(&mut &*content).unwrap();
            assert!(stored == compress(content), "{} bytes", content.len());
            assert_eq!(bytes, content.len() as u64);
        }
    }

    #[test]
    fn pieces_are_read_as_if_they_were_one() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let stored = compress(&content);
        let (first, rest) = stored.split_at(333_333);
        let (second, third) = rest.split_at(7);
        assert_eq!(decompress_pieces(&[first, second, third], content.len()).unwrap(), content);
        assert_eq!(decompress_pieces(&[&stored], content.len()).unwrap(), content);
        let short = decompress_pieces(&[first, second, third], content.len() - 1);
        assert!(matches!(short, Err(Error::TooLarge { .. })));
        assert!(matches!(decompress_pieces(&[first, second], content.len()), Err(Error::Gzip(_) | Error::Base64(_))));
        assert!(matches!(decompress_pieces(&[first, "%", third], content.len()), Err(Error::Base64(_))));
    }

    #[test]
    fn what_is_not_a_content_says_why() {
        assert!(matches!(decompress("%", 10), Err(Error::Base64(_))));
        assert!(matches!(decompress("aGVsbG8=", 10), Err(Error::Gzip(_))));
        let whole = compress(b"hello hello hello");
        let cut = STANDARD.encode(&STANDARD.decode(whole).unwrap()[..15]);
        assert!(matches!(decompress(&cut, 100), Err(Error::Gzip(_))));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(content in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let stored = compress(&content);
            prop_assert_eq!(&stored, &compress(&content));
            prop_assert_eq!(decompress(&stored, content.len()).unwrap(), content);
        }

        #[test]
        fn nothing_panics(stored in ".{0,200}") {
            let _ = decompress(&stored, 1000);
        }
    }
}
