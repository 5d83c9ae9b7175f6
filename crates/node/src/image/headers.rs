//! A limit on what describes an entry of a tar file.
//!
//! Long names and attributes come in entries of their own, which the library reads into memory as a whole before it returns
//! the entry that they are about. Their author chooses how long they are; compressed, a gigabyte of them is a megabyte.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// All headers of one entry together. A path has 4,096 bytes at most; extended attributes are a few kilobytes.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// A reader that gives no more than [`BYTES_MAX`] while headers are read.
pub(super) struct Limited<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

/// Says when headers are read.
pub(super) struct Limit {
    left: Rc<Cell<u64>>,
}

impl<R> Limited<R> {
    pub(super) fn new(reader: R) -> (Self, Limit) {
        let left = Rc::new(Cell::new(u64::MAX));
        (Self { reader, left: left.clone() }, Limit { left })
    }
}

impl Limit {
    /// Reads the headers of one entry. Content of the entry before that has not been read counts as well.
    ///
    /// # Errors
    /// `read`'s own, and one for which [`is_exceeded`] where there is more to read than the limit.
    pub(super) fn during<T>(&self, read: impl FnOnce() -> T) -> T {
        self.left.set(BYTES_MAX);
        let result = read();
        self.left.set(u64::MAX);
        result
    }
}

/// Tells whether an error is that of the limit.
pub(super) fn is_exceeded(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

/// Returns the limit in words.
pub(super) fn limit() -> String {
    format!("{} MiB of names and attributes for one entry", BYTES_MAX >> 20)
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, limit()));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for Limited<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}
