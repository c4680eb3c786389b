//! The contestants.

use crate::async_lock::AsyncRwLock;
use crate::contest::Contestant;
use crate::dedup::{HashDedup, IndexDedup, KeepAll};
use crate::items::{Packed, Rich, Stored};
use crate::locks::{Locked, ParkingLot, Std};
use crate::ours::{Collector, Floor, Pinned, Runs};
use crate::queues::{
    ArrayQueue, CrossbeamChannel, Flume, Kanal, Queue, Queued, Rtrb, SegQueue, SyncChannel,
    Thingbuf, TokioMpsc,
};
use crate::runs::{allocs, contention, cycle, latency, push};
use crate::source::Kind;
use opentelemetry::trace::{Link, SpanContext};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Ours,
    /// Shares nothing between threads.
    Floor,
    /// One ring per producer, which has to be made and registered first.
    Registered,
    Other,
    /// One of those with our 32-byte record in place of a `SpanContext`: what packing alone gives.
    Packed,
    /// Uses our dedup, or gives another result: shown, not competing.
    Shown,
}

/// The one whose queue of waiters is so slow under contention that it gets a part of the work only;
/// what is compared is a rate.
pub const SLOW_PART: usize = 64;

/// A contestant and its way through every bench.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub group: Group,
    pub cycle: cycle::Run,
    pub push: push::Run,
    pub push_all: push::Run,
    pub refuse: push::Run,
    pub contend: contention::Run,
    pub latency: latency::Run,
    pub trigger: latency::TriggerRun,
    pub allocs: allocs::Run,
}

impl Entry {
    /// How many of `contexts` each of several producers pushes here.
    pub fn part_of(&self, contexts: usize) -> usize {
        if self.name == RWLOCK { contexts / SLOW_PART } else { contexts }
    }
}

fn entry<C: Contestant>(name: &'static str, group: Group) -> Entry {
    Entry {
        name,
        group,
        cycle: cycle::run::<C>,
        push: push::run::<C>,
        push_all: push::run_all::<C>,
        refuse: push::run_full::<C>,
        contend: contention::run::<C>,
        latency: latency::run::<C>,
        trigger: latency::run_trigger::<C>,
        allocs: allocs::run::<C>,
    }
}

fn queued<Q: Queue<I>, I: Stored>(name: &'static str, group: Group) -> Entry {
    entry::<Queued<Q, I, HashDedup>>(name, group)
}

/// Names that others ask for.
pub const BATCHLINK: &str = "batchlink";
pub const PRODUCER: &str = "batchlink Producer";
pub const FLOOR: &str = "floor";
pub const RMW_FLOOR: &str = "floor with one CAS";
pub const ARRAY_QUEUE: &str = "crossbeam ArrayQueue";
pub const RTRB: &str = "rtrb per producer";
pub const STD_MUTEX: &str = "std Mutex<Vec>";
pub const RWLOCK: &str = "tokio RwLock<Vec<Link>>";
pub const SEG_QUEUE: &str = "crossbeam SegQueue (unbounded)";
/// They look again and again, which on a small machine costs the others their processor.
pub const POLLING: [&str; 4] =
    ["crossbeam ArrayQueue", "crossbeam ArrayQueue, packed", SEG_QUEUE, "rtrb per producer"];

fn others<I: Stored>() -> Vec<Entry> {
    use Group::{Other, Registered};
    vec![
        entry::<Locked<Std, I, HashDedup>>(STD_MUTEX, Other),
        entry::<Locked<ParkingLot, I, HashDedup>>("parking_lot Mutex<Vec>", Other),
        entry::<AsyncRwLock>(RWLOCK, Other),
        queued::<ArrayQueue, I>(ARRAY_QUEUE, Other),
        queued::<SegQueue, I>(SEG_QUEUE, Other),
        queued::<CrossbeamChannel, I>("crossbeam channel", Other),
        queued::<SyncChannel, I>("std sync_channel", Other),
        queued::<Flume, I>("flume", Other),
        queued::<Kanal, I>("kanal", Other),
        queued::<TokioMpsc, I>("tokio mpsc", Other),
        queued::<Thingbuf, I>("thingbuf", Other),
        queued::<Rtrb, I>(RTRB, Registered),
    ]
}

fn packed<I: Stored>() -> [Entry; 3] {
    [
        entry::<Locked<Std, I, HashDedup>>("std Mutex<Vec>, packed", Group::Packed),
        queued::<ArrayQueue, I>("crossbeam ArrayQueue, packed", Group::Packed),
        entry::<Locked<Std, I, IndexDedup>>("std Mutex<Vec>, packed, our dedup", Group::Shown),
    ]
}

fn ours() -> Vec<Entry> {
    vec![entry::<Collector>(BATCHLINK, Group::Ours), entry::<Pinned>(PRODUCER, Group::Ours)]
}

/// The contestants that push in runs.
pub fn bulk() -> Vec<Entry> {
    use Group::{Floor as Bottom, Other, Ours, Registered};
    vec![
        entry::<Runs<16>>("batchlink push_all(16)", Ours),
        entry::<Runs<128>>("batchlink push_all(128)", Ours),
        entry::<Runs<512>>("batchlink push_all(512)", Ours),
        entry::<Floor<Packed, false>>("floor, extend(512)", Bottom),
        entry::<Locked<Std, SpanContext, HashDedup>>("std Mutex<Vec>, extend(512)", Other),
        entry::<Locked<Std, Packed, HashDedup>>(
            "std Mutex<Vec>, packed, extend(512)",
            Group::Packed,
        ),
        queued::<TokioMpsc, SpanContext>("tokio mpsc, reserve_many(512)", Other),
        queued::<Rtrb, SpanContext>("rtrb per producer, chunk(512)", Registered),
    ]
}

/// All that can carry this kind of context. The floor needs one thread: `shared` leaves it out.
pub fn roster(kind: Kind, shared: bool) -> Vec<Entry> {
    let mut all = ours();
    let floors = match kind {
        Kind::Plain | Kind::Span => [entry::<Floor<Packed, false>>, entry::<Floor<Packed, true>>],
        Kind::TraceState | Kind::Attributes => {
            [entry::<Floor<Rich, false>>, entry::<Floor<Rich, true>>]
        }
    };
    if !shared {
        let floors = floors.iter().zip([FLOOR, RMW_FLOOR]);
        all.extend(floors.map(|(floor, name)| floor(name, Group::Floor)));
    }
    all.extend(match kind {
        Kind::Attributes => others::<Link>(),
        _ => others::<SpanContext>(),
    });
    all.extend(match kind {
        Kind::Plain | Kind::Span => packed::<Packed>(),
        Kind::TraceState | Kind::Attributes => packed::<Rich>(),
    });
    if kind == Kind::Span {
        all.push(entry::<Locked<Std, Link, KeepAll>>(
            "Mutex<Vec<Link>>, the SDK cuts (no dedup)",
            Group::Shown,
        ));
    }
    all
}
