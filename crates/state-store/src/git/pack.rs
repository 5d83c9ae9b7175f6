//! Packs: all objects of a batch in one file and its index, so that durability costs the same for one object and for thousands.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use gix::ObjectId;
use gix::objs::Kind;
use tempfile::NamedTempFile;

use super::io;
use crate::error::Trouble;

/// Writes `objects` as a pack into a repository's object directory.
///
/// # Guarantees
/// With `durable`, the pack and its name survive a crash of the machine once this returns. Readers see all of the pack or nothing:
/// the index comes last, and each file appears under its name only when it is complete.
///
/// Returns the bytes of the pack, which is self-contained.
pub(super) fn write(
    objects_directory: &Path,
    objects: &[(Kind, ObjectId, Bytes)],
    durable: bool,
) -> Result<Bytes, Trouble> {
    let directory = objects_directory.join("pack");
    fs::create_dir_all(&directory).map_err(io(&directory))?;
    let (data, mut entries) = pack(objects).map_err(io(&directory))?;
    let checksum = &data[data.len() - 20..];
    entries.sort_by_key(|entry| entry.id);
    let index = index(&entries, checksum).map_err(io(&directory))?;
    let name = format!("pack-{}", ObjectId::from_bytes_or_panic(checksum));
    // Both are complete before either gets its name: a pack without an index is space that nothing ever frees.
    let pack = prepare(&directory, &data, durable)?;
    let index = prepare(&directory, &index, durable)?;
    place(pack, &directory.join(format!("{name}.pack")))?;
    place(index, &directory.join(format!("{name}.idx")))?;
    if durable {
        sync_directory(&directory)?;
    }
    Ok(Bytes::from(data))
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), Trouble> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io(directory))
}

/// Writes under a temporary name that git cleans up.
fn prepare(directory: &Path, data: &[u8], durable: bool) -> Result<NamedTempFile, Trouble> {
    let mut file = tempfile::Builder::new().prefix("tmp_pack_").tempfile_in(directory).map_err(io(directory))?;
    file.write_all(data).map_err(io(directory))?;
    if durable {
        file.as_file().sync_all().map_err(io(directory))?;
    }
    let mut permissions = file.as_file().metadata().map_err(io(directory))?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    file.as_file().set_permissions(permissions).map_err(io(directory))?;
    Ok(file)
}

fn place(file: NamedTempFile, path: &Path) -> Result<(), Trouble> {
    file.persist(path).map(drop).map_err(|error| io(path)(error.error))
}

struct Entry {
    id: ObjectId,
    crc: u32,
    offset: u64,
}

fn pack(objects: &[(Kind, ObjectId, Bytes)]) -> std::io::Result<(Vec<u8>, Vec<Entry>)> {
    let mut data = Vec::with_capacity(objects.iter().map(|(_, _, data)| data.len() / 3 + 64).sum());
    data.extend_from_slice(b"PACK\0\0\0\x02");
    data.extend_from_slice(&u32::try_from(objects.len()).map_err(std::io::Error::other)?.to_be_bytes());
    let mut entries = Vec::with_capacity(objects.len());
    // Making one costs more than compressing a small file.
    let mut compress = Compress::new(Compression::fast(), true);
    for (kind, id, content) in objects {
        let start = data.len();
        header(&mut data, *kind, content.len());
        deflate(&mut compress, content, &mut data)?;
        let mut crc = Crc::new();
        crc.update(&data[start..]);
        entries.push(Entry { id: *id, crc: crc.sum(), offset: start as u64 });
    }
    let checksum = digest(&data)?;
    data.extend_from_slice(&checksum);
    Ok((data, entries))
}

fn deflate(compress: &mut Compress, content: &[u8], data: &mut Vec<u8>) -> std::io::Result<()> {
    compress.reset();
    let mut rest = content;
    loop {
        data.reserve(rest.len() / 2 + 64);
        let before = compress.total_in();
        let status = compress.compress_vec(rest, data, FlushCompress::Finish).map_err(std::io::Error::other)?;
        let taken = usize::try_from(compress.total_in() - before).map_err(std::io::Error::other)?;
        rest = &rest[taken..];
        if status == Status::StreamEnd {
            return Ok(());
        }
    }
}

/// Type and size: four bits of the size beside the type, then seven in each byte.
fn header(data: &mut Vec<u8>, kind: Kind, size: usize) {
    let kind: u8 = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut byte = kind << 4 | (size & 15) as u8;
    let mut rest = size >> 4;
    while rest > 0 {
        data.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    data.push(byte);
}

/// Index version 2: fan-out, ids, checksums, offsets, large offsets, trailer.
fn index(entries: &[Entry], pack_checksum: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(1100 + entries.len() * 28);
    data.extend_from_slice(b"\xfftOc\0\0\0\x02");
    let mut below = 0u32;
    let mut ids = entries.iter().peekable();
    for first in 0..=u8::MAX {
        while ids.next_if(|entry| entry.id.as_slice()[0] == first).is_some() {
            below += 1;
        }
        data.extend_from_slice(&below.to_be_bytes());
    }
    for entry in entries {
        data.extend_from_slice(entry.id.as_slice());
    }
    for entry in entries {
        data.extend_from_slice(&entry.crc.to_be_bytes());
    }
    let mut large: Vec<u64> = Vec::new();
    for entry in entries {
        let word = match u32::try_from(entry.offset) {
            Ok(offset) if offset < 1 << 31 => offset,
            _ => {
                large.push(entry.offset);
                1 << 31 | (large.len() - 1) as u32
            }
        };
        data.extend_from_slice(&word.to_be_bytes());
    }
    for offset in large {
        data.extend_from_slice(&offset.to_be_bytes());
    }
    data.extend_from_slice(pack_checksum);
    let checksum = digest(&data)?;
    data.extend_from_slice(&checksum);
    Ok(data)
}

fn digest(data: &[u8]) -> std::io::Result<[u8; 20]> {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(data);
    let id = hasher.try_finalize().map_err(std::io::Error::other)?;
    id.as_slice().try_into().map_err(std::io::Error::other)
}
