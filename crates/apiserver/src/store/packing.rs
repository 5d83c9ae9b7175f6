//! Objects at rest: what nobody has changed for a while is kept packed.
//!
//! The objects of one table differ in some names and times, and most of an object is read by nobody for hours: the managed
//! fields of a Pod that is over alone are longer than its specification. So an object that has left the log is compressed
//! against a sample of its table, to a tenth and less, and unpacked for whoever asks.

use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block;

use super::Record;

/// Bytes that a sample has at least: with fewer, the handful of shapes that a table mixes (Events) is not in it.
const SAMPLE_MIN: usize = 8 << 10;
/// Bytes that a sample has at most; it is gone through for every object that is packed.
const SAMPLE_MAX: usize = 32 << 10;

/// The encoding of an object, as it lies in memory.
#[derive(Debug)]
pub(super) enum Body {
    /// As it is sent.
    Plain(Bytes),
    /// Compressed.
    Packed(Packed),
}

/// A compressed encoding.
#[derive(Debug)]
pub(super) struct Packed {
    block: Box<[u8]>,
    size: usize,
    sample: Arc<[u8]>,
}

impl Body {
    /// Returns the encoding; a packed one is unpacked anew each time.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Packed(packed) => block::decompress_with_dict(&packed.block, packed.size, &packed.sample)
                .expect("what was packed with a sample unpacks with it")
                .into(),
        }
    }

    /// Returns the length of the encoding.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(packed) => packed.size,
        }
    }

    /// Returns the memory that it takes, the sample apart.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(packed) => packed.block.len(),
        }
    }
}

/// Packs the objects of one table.
#[derive(Debug)]
pub(super) enum Packer {
    /// The first objects make the sample, and stay as they are.
    Sampling(Vec<u8>),
    /// The sample is complete.
    Ready(Arc<[u8]>),
}

impl Default for Packer {
    fn default() -> Self {
        Self::Sampling(Vec::new())
    }
}

impl Packer {
    /// Returns the record packed; `None` for one that stays as it is.
    pub(super) fn pack(&mut self, record: &Record) -> Option<Record> {
        let Body::Plain(json) = &record.body else { return None };
        match self {
            Self::Sampling(sample) => {
                sample.extend_from_slice(&json[..json.len().min(SAMPLE_MAX - sample.len())]);
                if sample.len() >= SAMPLE_MIN {
                    *self = Self::Ready(std::mem::take(sample).into());
                }
                None
            }
            Self::Ready(sample) => {
                let block = block::compress_with_dict(json, sample);
                if block.len() >= json.len() {
                    return None;
                }
                let packed = Packed { block: block.into(), size: json.len(), sample: sample.clone() };
                Some(record.with_body(Body::Packed(packed)))
            }
        }
    }
}
