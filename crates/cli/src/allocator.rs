//! Where the memory of this program comes from.

/// Objects are trees of many small pieces: with the allocator of the C library a third of all processor time is spent on them,
/// and others keep twice the memory of what was freed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Gives memory back to the system while nothing happens; otherwise only the next allocation would.
///
/// This starts threads of the allocator, so it is for the platform alone: a container begins with one thread.
pub(crate) fn give_back_while_idle() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "freed memory is given back late: the allocator has no threads of its own here");
    }
}
