//! The queue in front of a store: many callers, one task, one commit for all who wait.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kratix_store_path::Path;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::Instrument;

use crate::backend::Backend;
use crate::change::{Change, Imprint, Tree, Version, Written};
use crate::checked::Checked;
use crate::config::StoreConfig;
use crate::error::{Error, Place, Trouble, WriteError};
use crate::exchange::Exchange;
use crate::ledger::Liveness;

/// How many changes wait for one store, and how many questions; whoever comes then waits for a place.
pub const QUEUE_MAX: usize = 1024;
/// How much content one change may carry.
pub const CHANGE_BYTES_MAX: usize = 64 << 20;
/// How much content one commit takes, unless a single change carries more. What is over goes into the next one.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Opens the store that `config` describes and starts the task that owns it, in the current Tokio runtime.
///
/// Nothing is read or written yet; [`Handle::check`] does. `cache` is a directory in which a remote's objects are kept between
/// calls; its content can be lost without harm. The task ends when the last handle is gone and the queue is empty, or at once
/// when it is [closed](Handle::close).
///
/// # Errors
/// [`Trouble::Config`] and [`Trouble::PlainHttp`] for a configuration that cannot work.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn open(config: impl Into<StoreConfig>, cache: impl Into<PathBuf>) -> Result<Handle, Error> {
    open_with(config, cache, Arc::new(|_| true))
}

/// As [`open`], with knowledge of which owners of ledgers still exist.
///
/// # Errors
/// As [`open`].
///
/// # Panics
/// As [`open`].
pub fn open_with(config: impl Into<StoreConfig>, cache: impl Into<PathBuf>, lives: Liveness) -> Result<Handle, Error> {
    let config = config.into();
    let pause = config.pushes_per_minute().map(|pushes| Duration::from_secs(60) / pushes.get());
    let origin = Arc::new(Origin { config, cache: cache.into(), lives });
    let store = Backend::new(origin.config.clone(), origin.cache.clone(), Arc::clone(&origin.lives))?;
    let (inbox, incoming) = mpsc::channel(QUEUE_MAX);
    let (questions, asked) = mpsc::channel(QUEUE_MAX);
    let (head, heads) = watch::channel(None);
    let (held, losses) = (Arc::new(AtomicUsize::default()), Arc::new(AtomicU64::default()));
    let place = store.place().clone();
    let (end, mut ended) = watch::channel(false);
    let (end, exchange) = (Arc::new(end), Exchange::default());
    let (counted, lost, owed) = (Arc::clone(&held), Arc::clone(&losses), exchange.clone());
    let handle = Handle { inbox, questions, held: counted, losses: lost, heads, place, end, exchange: owed, origin };
    let (next_push, unsettled) = (Instant::now(), 0);
    let service = Service { incoming, asked, held, losses, store, head, exchange, pause, next_push, unsettled };
    tokio::spawn(async move {
        // Nobody can close it any more once all handles are gone; what they have asked for is still done.
        let closed = async {
            if ended.wait_for(|is_closed| *is_closed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased; // Nothing more is begun after the end.
            () = closed => {}
            () = service.run() => {}
        }
    });
    Ok(handle)
}

/// A store, as its callers have it; clones are cheap and share one queue.
///
/// # Limits
/// [`QUEUE_MAX`] changes wait, and as many questions; a call waits for its place in the queue. Changes that wait for a push hold up
/// no question.
///
/// # Cancel safety
/// Dropping the future of a call stops the wait, not the work; repeating a write with the same content is silent.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::Sender<Write>,
    /// Apart from changes, which may have to wait for a push.
    questions: mpsc::Sender<Question>,
    /// How many changes the task has taken that wait for a push.
    held: Arc<AtomicUsize>,
    losses: Arc<AtomicU64>,
    heads: watch::Receiver<Option<Version>>,
    place: Arc<Place>,
    end: Arc<watch::Sender<bool>>,
    exchange: Exchange,
    origin: Arc<Origin>,
}

/// What a store was opened with.
struct Origin {
    config: StoreConfig,
    cache: PathBuf,
    lives: Liveness,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.config)
    }
}

impl Handle {
    /// Returns the store's name and address.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Queues `change` and returns once the store has accepted it durably, or could not.
    ///
    /// Changes that wait at the same time share one commit. A call that changes nothing commits nothing.
    ///
    /// # Guarantees
    /// `Ok` means: in the remote, durable and readable by others. An error of the change itself leaves others untouched.
    ///
    /// # Limits
    /// [`CHANGE_BYTES_MAX`] of content.
    ///
    /// # Errors
    /// [`WriteError::Store`] leaves open whether a push that was under way has arrived; writing again finds out.
    pub async fn write(&self, change: Change) -> Result<Written, WriteError> {
        self.reserve().await?.send(change).await
    }

    /// Waits for a place in the queue.
    ///
    /// What is [sent](Slot::send) is queued at once. So a caller whose change depends on data that others change too (a file
    /// that sums up many objects) takes its place first, and then computes and sends while it holds its own lock: the queue's
    /// order is then the order of the computations, and the last one wins.
    ///
    /// # Errors
    /// [`Trouble::Closed`] after the task has ended.
    pub async fn reserve(&self) -> Result<Slot<'_>, Error> {
        let permit = self.inbox.reserve().await.map_err(|_| self.closed())?;
        Ok(Slot { permit, place: &self.place })
    }

    /// Returns the content of a file, `None` if there is none.
    ///
    /// Symbolic links are not followed: their content is the path that they name.
    ///
    /// # Errors
    /// [`WriteError::Path`] for a path that cannot exist.
    pub async fn read(&self, path: &str) -> Result<Option<Bytes>, WriteError> {
        let path = parse(path, Path::parse_file)?;
        self.ask(|reply| Question::Read { path, reply }).await
    }

    /// Returns the paths of all files below a directory, relative to the store's path, in the order of Git trees.
    ///
    /// # Errors
    /// [`WriteError::Path`] for a path that cannot exist.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, WriteError> {
        let prefix = parse(prefix, Path::parse_directory)?;
        self.ask(|reply| Question::List { prefix, reply }).await
    }

    /// Returns the identity of everything below a directory, `None` if it does not exist.
    ///
    /// # Errors
    /// [`WriteError::Path`] for a path that cannot exist.
    pub async fn tree(&self, prefix: &str) -> Result<Option<Tree>, WriteError> {
        let prefix = parse(prefix, Path::parse_directory)?;
        self.ask(|reply| Question::Tree { prefix, reply }).await
    }

    /// Tells of each imprint whether the store still holds what the change left.
    ///
    /// All of them are compared with one state, by identities alone: no file is read. What is equal to the state that was
    /// verified before is not looked into again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn verify(&self, imprints: Vec<Imprint>) -> Result<Vec<bool>, Error> {
        self.ask_store(|reply| Question::Verify { imprints, reply }).await
    }

    /// Returns the present version, `None` for an empty repository.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn version(&self) -> Result<Option<Version>, Error> {
        self.ask_store(|reply| Question::Version { reply }).await
    }

    /// Finds out whether the store can be read and written, without leaving a trace in it.
    ///
    /// # Errors
    /// What a write would run into, except for rules that look at the content of a push.
    pub async fn check(&self) -> Result<(), Error> {
        self.ask_store(|reply| Question::Check { reply }).await
    }

    /// Returns a view of the newest version that this store's task has written or met.
    pub fn versions(&self) -> watch::Receiver<Option<Version>> {
        self.heads.clone()
    }

    /// Returns how many changes and questions wait, without those that are being worked on.
    pub fn queued(&self) -> usize {
        let changes = self.inbox.max_capacity() - self.inbox.capacity();
        let questions = self.questions.max_capacity() - self.questions.capacity();
        changes + questions + self.held.load(Ordering::Relaxed)
    }

    /// Returns how often this store was found empty although it had held something: what was written before is gone, and has
    /// to be handed over once more. Known before the call is answered that finds out.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Returns for how long the store has owed an answer to what it is being asked; nothing while it is asked nothing.
    pub fn silence(&self) -> Option<Duration> {
        self.exchange.age()
    }

    /// Ends the task at once, for all handles that share it. Whoever waits is told [`Trouble::Closed`].
    ///
    /// The exchange under way is given up as in a crash: its connections and programs end, and a push that the server has
    /// taken all the same is recognised by whoever writes next.
    pub fn close(&self) {
        self.end.send_replace(true);
    }

    /// Opens the same store anew, with a task and a queue of its own.
    ///
    /// # Errors
    /// As [`open`].
    ///
    /// # Panics
    /// As [`open`].
    pub fn reopen(&self) -> Result<Self, Error> {
        let Origin { config, cache, lives } = &*self.origin;
        open_with(config.clone(), cache.clone(), Arc::clone(lives))
    }

    /// Tells whether both are served by one task.
    pub fn is_same(&self, other: &Self) -> bool {
        self.inbox.same_channel(&other.inbox)
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, WriteError> {
        Ok(self.ask_store(question).await?)
    }

    async fn ask_store<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())?
    }

    fn closed(&self) -> Error {
        Error { place: self.place.clone(), trouble: Trouble::Closed }
    }
}

/// A place in the queue of a store.
#[derive(Debug)]
pub struct Slot<'a> {
    permit: mpsc::Permit<'a, Write>,
    place: &'a Arc<Place>,
}

impl Slot<'_> {
    /// Queues `change` before it returns; the future gives its result.
    pub fn send(self, change: Change) -> impl Future<Output = Result<Written, WriteError>> + Send + use<> {
        let Self { permit, place } = self;
        let place = place.clone();
        let checked = Checked::new(change);
        let answer = checked.map(|change| {
            let (reply, answer) = oneshot::channel();
            permit.send(Write { change: Box::new(change), reply });
            answer
        });
        async move { answer?.await.map_err(|_| Error { place, trouble: Trouble::Closed })? }
    }
}

fn parse(text: &str, rule: fn(&str) -> Result<Path, crate::Reason>) -> Result<Path, WriteError> {
    rule(text).map_err(|reason| WriteError::Path { path: text.to_owned(), reason })
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

#[derive(Debug)]
enum Question {
    Read { path: Path, reply: Reply<Option<Bytes>> },
    List { prefix: Path, reply: Reply<Vec<String>> },
    Tree { prefix: Path, reply: Reply<Option<Tree>> },
    Verify { imprints: Vec<Imprint>, reply: Reply<Vec<bool>> },
    Version { reply: Reply<Option<Version>> },
    Check { reply: Reply<()> },
}

#[derive(Debug)]
struct Write {
    change: Box<Checked>,
    reply: oneshot::Sender<Result<Written, WriteError>>,
}

/// Owns a store: all access of the process goes through this task, so there is no lock to hold.
struct Service {
    incoming: mpsc::Receiver<Write>,
    asked: mpsc::Receiver<Question>,
    held: Arc<AtomicUsize>,
    losses: Arc<AtomicU64>,
    store: Backend,
    head: watch::Sender<Option<Version>>,
    exchange: Exchange,
    pause: Option<Duration>,
    next_push: Instant,
    /// Changes of a batch that is being committed and waits for another push.
    unsettled: usize,
}

impl Service {
    async fn run(mut self) {
        let (mut questions, mut writes) = (Vec::new(), Vec::new());
        // Everything that queued up during the previous push shares the next one.
        while self.receive(&mut questions, &mut writes).await {
            self.answer(&mut questions).await;
            while !writes.is_empty() {
                self.wait_for_push(&mut questions, &mut writes).await;
                let batch = take_batch(&mut writes);
                self.hold(&writes);
                self.commit(batch, &mut questions, &mut writes).await;
            }
            self.store.tidy().await;
        }
    }

    /// Takes what has come; changes only while there is room for them. Returns false when nothing can come any more.
    ///
    /// # Cancel safety
    /// What was taken is in the lists.
    async fn receive(&mut self, questions: &mut Vec<Question>, writes: &mut Vec<Write>) -> bool {
        let room = QUEUE_MAX.saturating_sub(writes.len());
        let taken = tokio::select! {
            count = self.asked.recv_many(questions, QUEUE_MAX) => count,
            count = self.incoming.recv_many(writes, room), if room > 0 => count,
        };
        // Both ends are in every handle: where nothing comes of one kind any more, nothing new comes of the other.
        let rest = if taken == 0 { self.incoming.recv_many(writes, room).await } else { 0 };
        while let Ok(question) = self.asked.try_recv() {
            questions.push(question);
        }
        while writes.len() < QUEUE_MAX
            && let Ok(write) = self.incoming.try_recv()
        {
            writes.push(write);
        }
        self.hold(writes);
        taken + rest + questions.len() > 0
    }

    /// Answers what only reads. A read sees what was acknowledged before it was asked.
    async fn answer(&mut self, questions: &mut Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        let _asked = self.exchange.begin();
        for question in questions.drain(..) {
            // An asker that left needs no answer.
            match question {
                Question::Read { path, reply } => drop(reply.send(self.store.read(&path).await)),
                Question::List { prefix, reply } => drop(reply.send(self.store.list(&prefix).await)),
                Question::Tree { prefix, reply } => drop(reply.send(self.store.tree(&prefix).await)),
                Question::Verify { imprints, reply } => drop(reply.send(self.store.verify(imprints).await)),
                Question::Version { reply } => drop(reply.send(self.store.version().await)),
                Question::Check { reply } => drop(reply.send(self.store.check().await)),
            }
        }
        self.announce();
    }

    /// Keeps the agreed number of pushes in a minute; whatever comes meanwhile joins the batch or is answered.
    async fn wait_for_push(&mut self, questions: &mut Vec<Question>, writes: &mut Vec<Write>) {
        if Instant::now() < self.next_push {
            // With changes that never cease there is no better time.
            self.store.tidy().await;
        }
        while Instant::now() < self.next_push {
            match tokio::time::timeout_at(self.next_push, self.receive(questions, writes)).await {
                Ok(true) => self.answer(questions).await,
                Ok(false) | Err(_) => break,
            }
        }
        tokio::time::sleep_until(self.next_push).await;
    }

    /// Tells how many changes wait here.
    fn hold(&self, writes: &[Write]) {
        self.held.store(writes.len() + self.unsettled, Ordering::Relaxed);
    }

    /// Makes a batch durable. What comes while it waits for another push is answered, or joins `writes`.
    async fn commit(&mut self, batch: Vec<Write>, questions: &mut Vec<Question>, writes: &mut Vec<Write>) {
        let bytes: usize = batch.iter().map(|write| write.change.content_bytes()).sum();
        let span = tracing::info_span!("store_batch", store = %self.store.place().store, changes = batch.len(), bytes);
        let (changes, mut replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|write| (*write.change, Some(write.reply))).unzip();
        let mut pending = self.store.begin(changes);
        loop {
            let (pushes, asked) = (self.store.pushes(), self.exchange.begin());
            let settled = self.store.step(&mut pending).instrument(span.clone()).await;
            drop(asked);
            if let Some(pause) = self.pause
                && self.store.pushes() > pushes
            {
                self.next_push = Instant::now() + pause;
            }
            self.announce();
            for (at, outcome) in settled {
                if let Some(reply) = replies[at].take() {
                    // A waiter that left finds the result on its next pass.
                    let _ = reply.send(outcome);
                }
            }
            let unsettled = replies.iter().flatten().count();
            if unsettled == 0 {
                return;
            }
            if self.pause.is_some() {
                self.unsettled = unsettled;
                self.hold(writes);
                self.wait_for_push(questions, writes).await;
                self.unsettled = 0;
                self.hold(writes);
            }
        }
    }

    fn announce(&self) {
        self.losses.store(self.store.losses(), Ordering::Release);
        let known = self.store.known();
        self.head.send_if_modified(|head| {
            let news = known.is_some() && *head != known;
            if news {
                *head = known;
            }
            news
        });
    }
}

/// Takes from the front what fits into one commit, at least one.
fn take_batch(writes: &mut Vec<Write>) -> Vec<Write> {
    let mut bytes = 0;
    let fits = |write: &Write| {
        bytes += write.change.content_bytes();
        bytes <= BATCH_BYTES_MAX
    };
    let count = writes.iter().map(fits).take_while(|fits| *fits).count().max(1);
    let rest = writes.split_off(count.min(writes.len()));
    std::mem::replace(writes, rest)
}
