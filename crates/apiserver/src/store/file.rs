//! The durable back end: one redb file, written by one thread.
//!
//! Table `objects` maps `table NUL namespace NUL name` to a header (revision, schema, write time, offset of the
//! revision in the JSON) and the JSON; table `state` holds the format version and the newest revision, which is
//! written in the same transaction as the objects. A crash before the commit loses writes that nobody was told of; a
//! crash after it loses nothing.
//!
//! A medium that fails (a full disk) fails the writes of that batch. redb refuses everything after an I/O error, so the
//! next batch opens the file anew. Whether the failed batch is in it is not known: its objects are written again as
//! everybody has been told they are, in the same transaction as the new changes.
//!
//! # Assumptions
//! `fsync` of the file system does what it says; redb's commit is atomic.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc;

use super::packing::Body;
use super::record::Facts;
use super::space::{ChangeKind, Overlay, Space, Staged};
use super::{ObjectName, Queued, Record, WriteError};

/// Version of the layout of the file.
const FORMAT: u64 = 1;
/// Writes that share one transaction; more wait for the next, so that one reply is never delayed without bound.
const BATCH_MAX: usize = 256;
/// After a batch of so many there are writers at work that will be back at once, and the next one waits for their company: a
/// transaction costs much the same whatever is in it.
const BUSY: usize = 4;
/// Such batches begin so many times as long after each other as one of them takes, but no later than [`COMPANY_MAX`]: while a
/// medium is slow enough, company comes by itself.
const COMPANY_FACTOR: u32 = 4;
const COMPANY_MAX: Duration = Duration::from_millis(8);
/// Everything lives in memory anyway; redb's cache only helps its own tree.
const CACHE_BYTES: usize = 2 << 20;
const HEADER: usize = 28;

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path:?} is in use by another process; stop it or choose another file")]
    InUse {
        /// File.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("{path:?} has format {found}, this version reads up to {FORMAT}; use the newer version that wrote it")]
    Newer {
        /// File.
        path: PathBuf,
        /// Format found.
        found: u64,
    },
    /// A record cannot be read.
    #[error("{path:?} holds an object that cannot be read: {key:?}")]
    Corrupt {
        /// File.
        path: PathBuf,
        /// Key of the record.
        key: String,
    },
    /// The file cannot be read or is not a store.
    #[error("cannot open {path:?}")]
    File {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the thread that writes {path:?}")]
    Thread {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// Opens the database in a file.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send>;

/// Opens or creates a database that only its owner can read: it holds keys and secrets.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o077 != 0 {
            // Best effort: some file systems know no modes.
            let _ = file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700));
        }
    }
    redb::Builder::new().set_cache_size(CACHE_BYTES).create(path)
}

/// An opened file that nobody writes yet.
pub(super) struct File {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failure, until the file is opened anew.
    database: Option<Database>,
    /// Objects of batches that failed: the file may hold them or not.
    doubtful: HashSet<(Arc<str>, ObjectName)>,
    /// Newest revision of those batches.
    doubtful_until: u64,
}

/// Why a batch did not become durable.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error("another process has written the file meanwhile (revision {found}, expected {expected})")]
    Overtaken { found: u64, expected: u64 },
}

/// Ends the writer thread.
#[derive(Debug)]
pub(super) struct Closer {
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Closer {
    /// Asks the writer to stop. It looks after each batch; the caller has woken it.
    pub(super) fn request(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Waits until the file is closed.
    pub(super) fn join(&self) {
        // Taken first: whoever closes again while somebody waits does not wait.
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the writer has already failed every waiting write.
            let _ = thread.join();
        }
    }
}

impl File {
    pub(super) fn open(path: &Path, opener: Opener) -> Result<(Self, Space), OpenError> {
        let owned = || path.to_path_buf();
        let failed = |source: redb::Error| OpenError::File { path: owned(), source: Box::new(source) };
        let database = opener(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                OpenError::InUse { path: owned() }
            }
            other => failed(other.into()),
        })?;
        let revision = prepare(&database).map_err(&failed)?;
        let revision = revision.map_err(|found| OpenError::Newer { path: owned(), found })?;
        let mut space = Space::new(revision);
        load(&database, &mut space).map_err(&failed)?.map_err(|key| OpenError::Corrupt { path: owned(), key })?;
        let (doubtful, doubtful_until) = (HashSet::new(), 0);
        Ok((Self { path: owned(), opener, database: Some(database), doubtful, doubtful_until }, space))
    }

    /// Starts the thread that owns the file from now on.
    pub(super) fn spawn(
        mut self,
        space: Arc<RwLock<Space>>,
        mut inbox: mpsc::Receiver<Queued>,
    ) -> Result<Closer, OpenError> {
        let closing = Arc::new(AtomicBool::new(false));
        let flag = closing.clone();
        let path = self.path.clone();
        let run = move || {
            let mut not_before = Instant::now();
            while let Some(first) = inbox.blocking_recv() {
                #[expect(clippy::disallowed_methods, reason = "it is time that is waited for")]
                std::thread::sleep(not_before.saturating_duration_since(Instant::now()));
                let mut batch = Vec::with_capacity(16);
                batch.push(first);
                while batch.len() < BATCH_MAX
                    && let Ok(next) = inbox.try_recv()
                {
                    batch.push(next);
                }
                let is_busy = batch.len() >= BUSY;
                let begin = Instant::now();
                self.commit(&space, batch);
                if is_busy {
                    not_before = begin + (COMPANY_FACTOR * begin.elapsed()).min(COMPANY_MAX);
                }
                if flag.load(Ordering::SeqCst) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("apiserver-store".into())
            .spawn(run)
            .map_err(|source| OpenError::Thread { path, source })?;
        Ok(Closer { closing, thread: Mutex::new(Some(thread)) })
    }

    /// Decides a batch, makes it durable in one transaction, and only then shows it and replies.
    fn commit(&mut self, space: &RwLock<Space>, batch: Vec<Queued>) {
        let mut overlay = Overlay::default();
        let mut staged = Vec::with_capacity(batch.len());
        let mut replies = Vec::with_capacity(batch.len());
        {
            let space = space.read();
            for Queued { write, reply } in batch.into_iter() {
                let Some(write) = write else { continue };
                match space.stage(&mut overlay, write) {
                    Ok(change) => {
                        replies.push((reply, change.change.record.clone()));
                        staged.push(change);
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
        if staged.is_empty() {
            return;
        }
        if let Err(error) = self.write(space, &staged) {
            tracing::error!(path = %self.path.display(), %error, "cannot write the store");
            // Dropping it releases the file; the next batch opens it again.
            self.database = None;
            for Staged { table, change } in &staged {
                self.doubtful.insert((table.clone(), change.record.name().clone()));
                self.doubtful_until = self.doubtful_until.max(change.record.revision());
            }
            let error: Arc<str> = error.to_string().into();
            for (reply, _) in replies {
                let _ = reply.send(Err(WriteError::Storage(error.clone())));
            }
            return;
        }
        let woken = space.write().publish(staged);
        for (reply, record) in replies {
            // A writer that left reads the result on its next pass.
            let _ = reply.send(Ok(record));
        }
        woken.wake();
    }

    fn write(&mut self, space: &RwLock<Space>, staged: &[Staged]) -> Result<(), CommitError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen(space)?,
        };
        self.transact(&database, space, staged)?;
        self.database = Some(database);
        if !self.doubtful.is_empty() {
            tracing::info!(path = %self.path.display(), "the store can be written again");
            self.doubtful.clear();
        }
        Ok(())
    }

    /// Opens the file after a failure and makes sure that it is still this process's own.
    fn reopen(&self, space: &RwLock<Space>) -> Result<Database, CommitError> {
        let database = (self.opener)(&self.path).map_err(redb::Error::from)?;
        let found = read_revision(&database)?;
        let expected = space.read().revision();
        if found < expected || found > self.doubtful_until.max(expected) {
            return Err(CommitError::Overtaken { found, expected });
        }
        Ok(database)
    }

    fn transact(&self, database: &Database, space: &RwLock<Space>, staged: &[Staged]) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut value = Vec::new();
            for (table, name) in &self.doubtful {
                let key = key(table, name);
                match space.read().get(table, name) {
                    Some(record) => {
                        encode(record, &mut value);
                        objects.insert(key.as_str(), value.as_slice())?;
                    }
                    None => drop(objects.remove(key.as_str())?),
                }
            }
            for Staged { table, change } in staged {
                let key = key(table, change.record.name());
                if change.kind == ChangeKind::Deleted {
                    objects.remove(key.as_str())?;
                } else {
                    encode(&change.record, &mut value);
                    objects.insert(key.as_str(), value.as_slice())?;
                }
            }
            let newest = staged.last().map_or(0, |last| last.change.record.revision());
            transaction.open_table(STATE)?.insert("revision", newest)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn read_revision(database: &Database) -> Result<u64, redb::Error> {
    let state = database.begin_read()?.open_table(STATE)?;
    Ok(state.get("revision")?.map_or(1, |revision| revision.value()))
}

/// Creates the tables of a new file and checks the format of an old one; the inner error is a newer format.
fn prepare(database: &Database) -> Result<Result<u64, u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        transaction.open_table(OBJECTS)?;
        let mut state = transaction.open_table(STATE)?;
        let found = state.get("format")?.map(|format| format.value());
        match found {
            Some(found) if found > FORMAT => return Ok(Err(found)),
            Some(_) => {}
            None => {
                state.insert("format", FORMAT)?;
                state.insert("revision", 1)?;
            }
        }
        state.get("revision")?.map_or(1, |revision| revision.value())
    };
    transaction.commit()?;
    Ok(Ok(revision))
}

/// Fills the space from the file; the inner error is the key of an unreadable record.
fn load(database: &Database, space: &mut Space) -> Result<Result<(), String>, redb::Error> {
    let objects = database.begin_read()?.open_table(OBJECTS)?;
    for entry in objects.iter()? {
        let (key, value) = entry?;
        let mut parts = key.value().splitn(3, '\0');
        let (Some(table), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(Err(key.value().to_owned()));
        };
        match decode(ObjectName::new(namespace, name), value.value()) {
            Some(record) => space.restore(table, record),
            None => return Ok(Err(key.value().replace('\0', "/"))),
        }
    }
    Ok(Ok(()))
}

fn key(table: &str, name: &ObjectName) -> String {
    format!("{table}\0{}\0{}", name.namespace, name.name)
}

fn encode(record: &Record, value: &mut Vec<u8>) {
    let json = record.json();
    value.clear();
    value.reserve_exact(HEADER + json.len());
    value.extend_from_slice(&record.revision.to_le_bytes());
    value.extend_from_slice(&record.schema.to_le_bytes());
    value.extend_from_slice(&record.written_at.to_le_bytes());
    value.extend_from_slice(&u32::try_from(record.revision_at).expect("objects are far below 4 GiB").to_le_bytes());
    value.extend_from_slice(&json);
}

fn decode(name: ObjectName, value: &[u8]) -> Option<Record> {
    let (header, json) = value.split_at_checked(HEADER)?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let revision_at = u32::from_le_bytes(header[24..28].try_into().expect("four bytes")) as usize;
    let facts = Facts::parse(json).ok()?;
    json.get(revision_at..)?;
    Some(Record {
        name,
        revision: word(0),
        schema: word(8),
        written_at: word(16),
        revision_at,
        body: Body::Plain(Bytes::copy_from_slice(json)),
        facts,
    })
}
