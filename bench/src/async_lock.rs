//! What people write in async code today: a `Vec<Link>` under tokio's `RwLock`; the consumer takes
//! its part, keeps what a new std `HashSet` has not seen, and truncates.

use crate::contest::{Batch, Consumer, Contestant, Counts, MAX_LINKS, Producer, Setup};
use crate::items::Item;
use opentelemetry::trace::{Link, SpanContext};
use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::{Notify, RwLock};

pub struct AsyncRwLock;

pub struct AsyncShared {
    links: RwLock<Vec<Link>>,
    full: Notify,
    producers: AtomicUsize,
    setup: Setup,
}

pub struct AsyncProducer(Arc<AsyncShared>);

pub struct AsyncConsumer {
    shared: Arc<AsyncShared>,
    runtime: tokio::runtime::Runtime,
}

/// What `.await` costs when it need not wait; otherwise parks the thread.
#[inline(always)]
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => park_for(future),
    }
}

#[cold]
fn park_for<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

impl Contestant for AsyncRwLock {
    type Producer = AsyncProducer;
    type Consumer = AsyncConsumer;

    fn open(setup: Setup) -> (Vec<AsyncProducer>, AsyncConsumer) {
        let shared = Arc::new(AsyncShared {
            links: RwLock::new(Vec::with_capacity(setup.capacity)),
            full: Notify::new(),
            producers: AtomicUsize::new(setup.producers),
            setup,
        });
        let producers = (0..setup.producers).map(|_| AsyncProducer(Arc::clone(&shared))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        (producers, AsyncConsumer { shared, runtime })
    }
}

impl AsyncProducer {
    #[inline(always)]
    fn put(&self, link: Link) -> bool {
        let mut links = wait_for(self.0.links.write());
        if links.len() == self.0.setup.capacity {
            return false;
        }
        links.push(link);
        if links.len() >= self.0.setup.batch {
            self.0.full.notify_one();
        }
        true
    }
}

impl Producer for AsyncProducer {
    #[inline(always)]
    fn push(&mut self, context: &SpanContext) -> bool {
        self.put(Link::new(context.clone(), Vec::new(), 0))
    }

    #[inline(always)]
    fn push_link(&mut self, link: &Link) -> bool {
        self.put(link.clone())
    }
}

impl Drop for AsyncProducer {
    fn drop(&mut self) {
        self.0.producers.fetch_sub(1, Ordering::Release);
        self.0.full.notify_one();
    }
}

impl AsyncConsumer {
    fn batch_of(mut links: Vec<Link>) -> Batch {
        let mut counts = Counts { received: links.len() as u64, ..Counts::default() };
        let mut seen = HashSet::new();
        // With the truncation inside, so that the counters are those of all contestants.
        links.retain(|link| {
            let key = link.key();
            if counts.linked as usize == MAX_LINKS {
                match seen.contains(&key) {
                    true => counts.duplicates += 1,
                    false => counts.truncated += 1,
                }
                return false;
            }
            let new = seen.insert(key);
            *(if new { &mut counts.linked } else { &mut counts.duplicates }) += 1;
            new
        });
        Batch { links, counts }
    }
}

impl Consumer for AsyncConsumer {
    fn take(&mut self) -> Option<Batch> {
        let mut links = wait_for(self.shared.links.write());
        let count = links.len().min(self.shared.setup.batch);
        let links: Vec<Link> = links.drain(..count).collect();
        (count > 0).then(|| Self::batch_of(links))
    }

    fn wait(&mut self) -> Option<Batch> {
        let shared = &self.shared;
        let batch = shared.setup.batch;
        let links: Vec<Link> = self.runtime.block_on(async {
            loop {
                let closed = shared.producers.load(Ordering::Acquire) == 0;
                let mut links = shared.links.write().await;
                if links.len() >= batch || closed {
                    let count = links.len().min(batch);
                    return links.drain(..count).collect();
                }
                drop(links);
                shared.full.notified().await;
            }
        });
        (!links.is_empty()).then(|| Self::batch_of(links))
    }
}
