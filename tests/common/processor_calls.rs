//! Calls of a batch processor, its submitters, callers and batches, in any order and on one thread,
//! made on the oracle too: which caller gets which answer, when each batch span ends, and what it
//! then says.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use super::common::choices::{Choices, Item, one_of};
use super::common::collector_calls::flush_policy;
use super::common::{NEVER, by_size, oracle};
use super::exported::Exporter;
use batchlink::{
    Counts, Dedup, FlushPolicy, Parent, PushError, Trigger, Truncation,
    processor::{Answer, Batch, BatchItem, BatchProcessor, CallError, SubmitError, Submitter},
};
use opentelemetry::trace::{Link, Span, SpanContext, SpanId, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

/// What is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    id: usize,
    key: u8,
    weight: u64,
}

impl Payload {
    /// What is coalesced by.
    fn group(&self) -> u64 {
        self.weight % 3
    }
}

/// The result of an item is its id, and so is its error.
type Reply = Result<usize, CallError<usize>>;
type Processor = BatchProcessor<Payload, usize, usize>;

/// A processor, as configured.
#[derive(Clone, Debug)]
pub struct Setup {
    size: usize,
    capacity: usize,
    policy: oracle::Policy,
    no_delay: bool,
    max_weight: Option<u64>,
    by_key: bool,
    /// Keys fill batches of their own.
    key_batches: bool,
    /// Items of a batch that agree in [`Payload::group`] share an answer.
    coalesce: bool,
    places: bool,
    back_links: bool,
    skip_canceled: bool,
    parent: Parent,
    flush: FlushPolicy,
    /// Batches that are handled at the same time.
    at_once: usize,
}

impl Setup {
    /// Small, so that it is soon full; one shard, as there is one thread.
    pub fn choose(choices: &mut impl Choices) -> Self {
        let size = 1 + choices.below(12) as usize;
        let mut setup = Self {
            size,
            capacity: size + choices.below(12) as usize,
            // Further spans are not expected here.
            policy: oracle::Policy {
                max_pages: None,
                ..oracle::Policy::choose(choices, size as u64 + 2)
            },
            no_delay: choices.below(4) == 3,
            max_weight: one_of(choices, &[None, Some(10), Some(1), Some(1 << 38)]),
            by_key: choices.below(2) == 1,
            places: choices.below(2) == 1,
            back_links: choices.below(2) == 1,
            skip_canceled: choices.below(2) == 1,
            parent: one_of(choices, &[Parent::Current, Parent::None, Parent::First, Parent::Only]),
            flush: flush_policy(choices, size),
            at_once: 1 + choices.below(4) as usize,
            key_batches: false,
            coalesce: false,
        };
        let keys = choices.below(8);
        (setup.key_batches, setup.coalesce) = (keys % 4 == 3, keys >= 4);
        if setup.key_batches {
            setup.by_key = true;
            // The load is of no key.
            if matches!(setup.flush, FlushPolicy::Balanced { .. }) {
                setup.flush = FlushPolicy::Delay;
            }
        }
        setup
    }
}

/// How an item is given to a submitter.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Submit,
    WithContext,
    /// Without time to wait.
    WaitTimeout,
    /// Polled once, and dropped if there was no room.
    WaitAsync,
    Call,
    CallWithContext,
    CallWait,
    /// Without time to wait for the answer.
    CallTimeout,
}

/// What is given to a submitter, and by which one.
#[derive(Clone, Debug)]
pub struct Give {
    by: usize,
    how: How,
    /// Outside of any span, if there is none.
    item: Option<Item>,
    /// Where telemetry is suppressed.
    suppressed: bool,
    key: u8,
    weight: u64,
}

impl Give {
    fn choose(choices: &mut impl Choices, by: usize) -> Self {
        use How::*;
        let how = one_of(
            choices,
            &[
                Submit,
                Call,
                Call,
                CallWithContext,
                CallWait,
                WithContext,
                WaitTimeout,
                WaitAsync,
                CallTimeout,
            ],
        );
        let place = choices.below(16);
        let (item, suppressed) =
            ((place != 15).then(|| Item::choose(choices, 16)), (13..15).contains(&place));
        let weight = one_of(choices, &[1, 0, 2, 3, 5, 9, 10, 11, (1 << 38) - 1, u64::MAX]);
        Self { by, how, item, suppressed, key: choices.below(4) as u8, weight }
    }
}

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    Succeed,
    Fail,
    Complete(bool),
    /// Dropped without a word.
    None,
    /// Answered with a batch that was given another number of results.
    Mismatch {
        items: usize,
        results: usize,
    },
}

/// What is done with a whole batch.
#[derive(Clone, Debug)]
pub enum Fate {
    /// By results, of which there may be too few, or too many if they are not made to fit.
    Complete {
        results: Vec<bool>,
        fit: bool,
    },
    /// Item by item.
    Items(Vec<Word>),
    SucceedAll,
    FailAll,
    /// Its items go their own ways.
    Scatter,
    Drop,
}

/// One call. The numbers are those of the submitter, caller, batch or answer that it is made with.
#[derive(Clone, Debug)]
pub enum Call {
    Give(Give),
    Poll(usize),
    GiveUp(usize),
    NextBatch,
    TryNext,
    Batch(usize, Fate),
    /// The user sets the status of a batch's span.
    Mark(usize, Status),
    Answer(usize, Word),
    Flush,
    Close,
    Clone(usize),
    Drop(usize),
    DropProcessor,
}

impl Call {
    pub fn choose(choices: &mut impl Choices) -> Self {
        let kind = choices.below(256);
        let which = choices.below(16) as usize;
        match kind {
            0..120 => Self::Give(Give::choose(choices, which)),
            120..135 => Self::Poll(which),
            135..140 => Self::GiveUp(which),
            140..165 => Self::NextBatch,
            165..178 => Self::TryNext,
            178..203 => {
                let some = choices.below(14);
                let fate = match choices.below(8) {
                    fit @ 0..2 => Fate::Complete {
                        results: (0..some).map(|_| choices.below(2) == 0).collect(),
                        fit: fit == 0,
                    },
                    2 => Fate::SucceedAll,
                    3 => Fate::FailAll,
                    4 => Fate::Drop,
                    5 => Fate::Items((0..some).map(|_| Word::choose(choices)).collect()),
                    _ => Fate::Scatter,
                };
                Self::Batch(which, fate)
            }
            203..233 => Self::Answer(which, Word::choose(choices)),
            233..240 => Self::Flush,
            240..243 => {
                let ok = choices.below(2) == 1;
                Self::Mark(which, if ok { Status::Ok } else { Status::error(PARTIAL) })
            }
            243..248 => Self::Clone(which),
            248..255 => Self::Drop(which),
            // After these little can happen.
            _ => match choices.below(8) {
                0 => Self::Close,
                1 => Self::DropProcessor,
                _ => Self::Flush,
            },
        }
    }
}

impl Word {
    fn choose(choices: &mut impl Choices) -> Self {
        one_of(
            choices,
            &[Self::Succeed, Self::Fail, Self::Complete(true), Self::Complete(false), Self::None],
        )
    }
}

/// How a session ends.
#[derive(Clone, Debug)]
pub struct End {
    /// What is given before.
    last: Vec<Give>,
    /// Closed by the last submitter and caller to go.
    by_drop: bool,
    how: HowToEnd,
}

#[derive(Clone, Copy, Debug)]
enum HowToEnd {
    /// With what is in it.
    Drop,
    /// What is left is handled batch by batch, or item by item.
    Run,
    RunEach,
    RunEachAsync,
    /// Batch by batch, of which several are in flight, and end in another order.
    RunAsync,
    /// As `RunEachAsync`, and dropped again and again while an item is handled.
    Cancel,
}

impl End {
    pub fn choose(choices: &mut impl Choices) -> Self {
        let how = one_of(
            choices,
            &[
                HowToEnd::Drop,
                HowToEnd::Run,
                HowToEnd::RunEach,
                HowToEnd::RunEachAsync,
                HowToEnd::Cancel,
                HowToEnd::RunAsync,
            ],
        );
        let by_drop = choices.below(4) == 3;
        let last = choices.below(20);
        Self {
            last: (0..last).map(|by| Give::choose(choices, by as usize)).collect(),
            by_drop,
            how,
        }
    }
}

/// What a session came by, so that a test can demand it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Items handled by `run_each`, and those of them that were linked though their context is
    /// invalid.
    pub items: u64,
    pub invalid_links: u64,
    /// Items whose handler was dropped.
    pub cancelled: u64,
    /// Batches that have no span, as all of their items were submitted where telemetry is
    /// suppressed.
    pub suppressed_batches: u64,
    /// Batches that failed with a status of the user's.
    pub marked: u64,
    /// Items that were dropped, since their callers had left.
    pub canceled: u64,
    /// Items that shared the answer of another, and of these the ones on spans of `run_each`.
    pub coalesced: u64,
    pub coalesced_links: u64,
    /// Batches with the only request as parent, and with the first of several.
    pub only_parents: u64,
    pub first_parents: u64,
    /// Calls whose span was linked to its batch, and those that had left before the answer.
    pub back_links: u64,
    pub early_links: u64,
    /// Batches, and those that `run` and `run_each` made of what was left.
    pub batches: u64,
    pub last_batches: u64,
    /// Items that were accepted, and that were refused because the queue was full, or closed.
    pub accepted: u64,
    pub full: u64,
    pub closed: u64,
}

/// What the oracle knows of an item.
struct Known {
    context: SpanContext,
    payload: Payload,
    suppressed: bool,
    /// In which batch it came, by number from 0.
    batch: Option<usize>,
    reply: Option<Reply>,
    /// Those that share its answer.
    others: Vec<usize>,
    /// Its caller has left.
    left: bool,
    /// The span of the call, whether it was the current one, and the batch that it must lead to.
    span: Recorder,
    is_current: bool,
    back_link: Option<usize>,
}

/// A span that keeps its links.
#[derive(Clone, Debug)]
struct Recorder {
    context: SpanContext,
    links: Arc<Mutex<Vec<Link>>>,
}

impl Span for Recorder {
    fn add_event_with_timestamp<N>(&mut self, _: N, _: SystemTime, _: Vec<KeyValue>)
    where
        N: Into<Cow<'static, str>>,
    {
    }

    fn span_context(&self) -> &SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        true
    }

    fn set_attribute(&mut self, _: KeyValue) {}

    fn set_status(&mut self, _: Status) {}

    fn update_name<N: Into<Cow<'static, str>>>(&mut self, _: N) {}

    fn add_link(&mut self, context: SpanContext, attributes: Vec<KeyValue>) {
        self.links.lock().expect("no panic").push(Link::new(context, attributes, 0));
    }

    fn end_with_timestamp(&mut self, _: SystemTime) {}
}

/// A call that waits.
struct Caller {
    id: usize,
    future: Pin<Box<dyn Future<Output = Reply>>>,
    /// The item waits for room.
    outside: bool,
    woken: Arc<Woken>,
}

/// Whether the task was woken since it was polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a batch span must say in the end.
struct Made {
    items: usize,
    /// Of these, those that share another's answer.
    coalesced: usize,
    links: Vec<Link>,
    counts: Counts,
    trigger: Trigger,
    answered: usize,
    succeeded: usize,
    /// All items were submitted where telemetry is suppressed: there is no span.
    suppressed: bool,
    /// What the user set.
    status: Status,
    first_failure: Option<Failure>,
}

/// Why an item failed, as its batch's span says.
#[derive(Clone, Debug)]
struct Failure {
    text: String,
    error_type: &'static str,
    /// Recorded as an exception on the batch's span.
    recorded: bool,
}

/// What the span of an item must say, and the batch's number.
struct ItemSpan {
    id: usize,
    index: usize,
    batch: usize,
    span: SpanId,
    /// The handler was dropped.
    cancelled: bool,
}

/// Items that wait for others of their key.
struct Held {
    groups: Vec<VecDeque<usize>>,
    size: usize,
    capacity: usize,
    max_weight: u64,
    /// What makes all items due as they come.
    early: Option<Trigger>,
}

impl Held {
    fn len(&self) -> usize {
        self.groups.iter().map(VecDeque::len).sum()
    }
}

/// A processor and the oracle, side by side.
pub struct Session {
    submitters: Vec<Submitter<Payload, usize, usize>>,
    processor: Option<Processor>,
    callers: Vec<Caller>,
    batches: Vec<(usize, Batch<Payload, usize, usize>)>,
    answers: Vec<(usize, Answer<usize, usize>)>,
    exporter: Exporter,
    model: Model,
}

/// What must be the case.
struct Model {
    policy: oracle::Policy,
    at_once: usize,
    by_key: bool,
    /// Links say their place.
    places: bool,
    back_links: bool,
    skip_canceled: bool,
    coalesce: bool,
    parent: Parent,
    canceled: u64,
    early_links: u64,
    queue: oracle::Collector,
    links: oracle::LinkSet,
    items: Vec<Known>,
    /// In the queue, by id.
    waiting: VecDeque<usize>,
    /// Taken, but not given out yet.
    parts: VecDeque<(Trigger, Vec<usize>)>,
    /// By key, the oldest key first, if keys fill batches of their own.
    held: Option<Held>,
    made: Vec<Made>,
    /// In the order in which their spans end.
    ended: Vec<usize>,
    succeeded: u64,
    failed: u64,
}

impl Session {
    pub fn new(setup: Setup) -> Self {
        let Setup { size, capacity, policy, no_delay, max_weight, by_key, .. } = setup;
        let Setup { key_batches, places, flush, at_once, back_links, .. } = setup;
        let Setup { skip_canceled, parent, coalesce, .. } = setup;
        let config = by_size(size).with_shards(1).with_queue_capacity(capacity);
        let config = config.with_max_delay(if no_delay { Duration::ZERO } else { NEVER });
        let links = match places {
            true => {
                policy.links().with_link_attributes(|_, place| [KeyValue::new(PLACE, place as i64)])
            }
            false => policy.links(),
        };
        let config = config.with_link_policy(links.with_parent(parent)).with_flush_policy(flush);
        let mut builder =
            BatchProcessor::builder("batch").with_config(config).with_item_span_name("item");
        builder = builder.with_back_links(back_links).with_skip_canceled(skip_canceled);
        builder = builder.with_max_concurrent_batches(at_once);
        if let Some(weight) = max_weight {
            builder = builder.with_max_batch_weight(weight, |payload: &Payload| payload.weight);
        }
        if key_batches {
            builder = builder.with_key_batches(|payload: &Payload| payload.key);
        } else if by_key {
            builder = builder.with_key(|payload| payload.key);
        }
        if coalesce {
            builder = builder.with_coalescing(Payload::group);
        }
        let exporter = Exporter::default();
        let (submitter, processor) = builder.build(exporter.tracer()).expect("valid");
        let queue =
            oracle::Collector::new(size, capacity.next_power_of_two(), 1).of_items(max_weight);
        let queue = queue.with_flush_policy(flush);
        let held = key_batches.then(|| Held {
            groups: Vec::new(),
            size,
            capacity: capacity.next_power_of_two(),
            max_weight: max_weight.unwrap_or(u64::MAX),
            early: match flush {
                FlushPolicy::Immediate => Some(Trigger::Policy),
                _ if no_delay => Some(Trigger::Timeout),
                FlushPolicy::IdleRestart { idle } if idle.is_zero() => Some(Trigger::Policy),
                _ => None,
            },
        });
        let queue = match key_batches {
            true => oracle::Collector::new(usize::MAX, capacity.next_power_of_two(), 1)
                .of_items(None)
                .with_flush_policy(FlushPolicy::Immediate),
            false => queue,
        };
        let model = Model {
            held,
            at_once,
            by_key,
            places,
            back_links,
            skip_canceled,
            coalesce,
            parent,
            canceled: 0,
            early_links: 0,
            queue: if no_delay && !key_batches { queue.without_delay() } else { queue },
            links: oracle::LinkSet::new(policy.clone()),
            policy,
            items: Vec::new(),
            waiting: VecDeque::new(),
            parts: VecDeque::new(),
            made: Vec::new(),
            ended: Vec::new(),
            succeeded: 0,
            failed: 0,
        };
        Self {
            submitters: vec![submitter],
            processor: Some(processor),
            callers: Vec::new(),
            batches: Vec::new(),
            answers: Vec::new(),
            exporter,
            model,
        }
    }

    pub fn call(&mut self, call: &Call) {
        match call {
            Call::Give(give) => self.give(give),
            Call::Poll(which) => self.poll(*which),
            Call::GiveUp(which) => {
                if !self.callers.is_empty() {
                    let caller = self.callers.swap_remove(which % self.callers.len());
                    self.model.returned(caller.id);
                }
            }
            Call::NextBatch => {
                let Some(processor) = &mut self.processor else { return };
                let due = self.model.due();
                let batch = processor.next_batch_timeout(Duration::ZERO).ok();
                let found = batch.as_ref().map(|batch| batch.as_ref().map(Batch::trigger));
                assert_eq!(found, due);
                if let Some(batch) = batch.flatten() {
                    self.batches.push((self.model.check_batch(&batch), batch));
                }
            }
            Call::TryNext => {
                let Some(processor) = &mut self.processor else { return };
                let due = self.model.available();
                let batch = processor.try_next();
                assert_eq!(batch.as_ref().map(Batch::trigger), due);
                if let Some(batch) = batch {
                    self.batches.push((self.model.check_batch(&batch), batch));
                }
            }
            Call::Batch(which, fate) => {
                if !self.batches.is_empty() {
                    let (number, batch) = self.batches.swap_remove(which % self.batches.len());
                    self.finish(number, batch, fate);
                }
            }
            Call::Mark(which, status) => {
                if !self.batches.is_empty() {
                    let (number, batch) = &self.batches[which % self.batches.len()];
                    batch.context().span().set_status(status.clone());
                    let set = &mut self.model.made[*number].status;
                    // The SDK keeps the greater one.
                    if *status > *set {
                        *set = status.clone();
                    }
                }
            }
            Call::Answer(which, word) => {
                if !self.answers.is_empty() {
                    let (id, answer) = self.answers.swap_remove(which % self.answers.len());
                    assert_eq!(answer.is_awaited(), self.is_awaited(id));
                    self.say(id, answer, *word);
                }
            }
            Call::Flush => {
                self.submitters[0].flush();
                self.model.queue.flush();
            }
            Call::Close => {
                self.submitters[0].close();
                self.model.queue.close();
            }
            Call::Clone(which) => {
                let submitter = self.submitter(*which);
                self.submitters.push(match which % 3 {
                    0 => submitter,
                    1 => submitter.producer(),
                    _ => submitter.downgrade().upgrade().expect("one is left"),
                });
            }
            // The last one stays until the end, or there would be nothing to do.
            Call::Drop(which) => {
                if self.submitters.len() > 1 {
                    self.submitters.swap_remove(which % self.submitters.len());
                }
            }
            Call::DropProcessor => self.drop_processor(),
        }
        self.check_stats();
    }

    /// All that is left comes to its end, and is looked at as exported.
    pub fn end(mut self, End { last, by_drop, how }: &End) -> Seen {
        for give in last {
            self.call(&Call::Give(give.clone()));
        }
        if *by_drop {
            self.submitters.clear();
            // Each holds one.
            for caller in self.callers.drain(..) {
                self.model.returned(caller.id);
            }
        } else {
            self.submitters[0].close();
        }
        self.model.queue.close();
        if let HowToEnd::Drop = how {
            self.call(&Call::NextBatch);
        }
        let (mut items, before) = (Vec::new(), self.model.made.len());
        if let Some(processor) = self.processor.take_if(|_| !matches!(how, HowToEnd::Drop)) {
            self.model.run(processor, *how, &mut items);
        }
        let last_batches = self.model.made.len() - before;
        self.drop_processor();
        while let Some((number, batch)) = self.batches.pop() {
            self.finish(number, batch, &Fate::Scatter);
        }
        while let Some((id, answer)) = self.answers.pop() {
            self.say(id, answer, Word::None);
        }
        while !self.callers.is_empty() {
            let left = self.callers.len();
            self.poll(0);
            assert!(self.callers.len() < left, "a caller without an answer");
        }
        self.check_stats();
        let model = &self.model;
        assert_eq!(model.ended.len(), model.made.len());
        let spans = self.exporter.spans();
        let invalid_links = check_spans(model, &spans, &items);
        let back_links = check_back_links(model, &spans);
        let oracle::Collector { accepted, rejected_full: full, rejected_closed: closed, .. } =
            model.queue;
        let batches = |which: fn(&&Made) -> bool| model.made.iter().filter(which).count() as u64;
        let parents = |of: Parent, which: fn(&Made) -> bool| {
            let has_parent = |made: &&Made| {
                let parent = expected_parent(of, &made.links, &made.counts);
                which(made) && parent.is_valid() && !made.suppressed
            };
            model.made.iter().filter(|_| of == model.parent).filter(has_parent).count() as u64
        };
        Seen {
            items: items.len() as u64,
            cancelled: items.iter().filter(|item| item.cancelled).count() as u64,
            suppressed_batches: batches(|made| made.suppressed),
            marked: batches(|made| made.status != Status::Unset && made.first_failure.is_some()),
            invalid_links: invalid_links as u64,
            canceled: model.canceled,
            coalesced: model.coalesced(),
            coalesced_links: items
                .iter()
                .map(|item| model.items[item.id].others.len() as u64)
                .sum(),
            only_parents: parents(Parent::Only, |made| made.items > 0),
            first_parents: parents(Parent::First, |made| made.links.len() > 1),
            back_links: back_links as u64,
            early_links: model.early_links,
            batches: model.made.len() as u64,
            last_batches: last_batches as u64,
            accepted,
            full,
            closed,
        }
    }

    fn submitter(&self, which: usize) -> Submitter<Payload, usize, usize> {
        self.submitters[which % self.submitters.len()].clone()
    }

    fn give(&mut self, Give { by, how, item, suppressed, key, weight }: &Give) {
        let submitter = self.submitter(*by);
        let (id, payload) = (
            self.model.items.len(),
            Payload { id: self.model.items.len(), key: *key, weight: *weight },
        );
        let context = item.map_or(SpanContext::NONE, |item| item.context(0, 0));
        let known = Known {
            context: if *suppressed { SpanContext::NONE } else { context.clone() },
            suppressed: *suppressed,
            payload,
            batch: None,
            reply: None,
            others: Vec::new(),
            left: false,
            span: Recorder { context: context.clone(), links: Arc::default() },
            is_current: item.is_some() && !matches!(how, How::WithContext | How::CallWithContext),
            back_link: None,
        };
        let is_current = known.is_current;
        let span = known.span.clone();
        self.model.items.push(known);
        let mut around = Context::new();
        if is_current {
            around = around.with_span(span);
        }
        let _entered =
            if *suppressed { around.with_telemetry_suppressed() } else { around }.attach();
        let given_back = |rejected: SubmitError<Payload>| {
            let reason = rejected.reason();
            assert_eq!(rejected.into_item(), payload);
            reason
        };
        let accepted = match how {
            How::Submit => submitter.submit(payload),
            How::WithContext => submitter.submit_with_context(payload, &context),
            How::WaitTimeout => submitter.submit_wait_timeout(payload, Duration::ZERO),
            How::WaitAsync => {
                let accepted =
                    poll(&mut Box::pin(submitter.submit_wait_async(payload)), &Arc::default());
                return assert_eq!(accepted.map_err(given_back), self.model.offer(id));
            }
            How::CallTimeout => {
                let accepted = self.model.push(id).map_err(Self::refusal);
                let reply = submitter.call_blocking_timeout(payload, Duration::ZERO);
                self.model.returned(id);
                return assert_eq!(reply, Err(accepted.err().unwrap_or(CallError::Timeout)));
            }
            How::Call | How::CallWithContext | How::CallWait => {
                let future: Pin<Box<dyn Future<Output = Reply>>> = match how {
                    How::Call => Box::pin(async move { submitter.call(payload).await }),
                    How::CallWait => Box::pin(async move { submitter.call_wait(payload).await }),
                    _ => Box::pin(
                        async move { submitter.call_with_context(payload, &context).await },
                    ),
                };
                let outside = matches!(how, How::CallWait);
                let pushed = if outside { Ok(()) } else { self.model.push(id) };
                if let Err(reason) = pushed {
                    self.model.items[id].reply = Some(Err(Self::refusal(reason)));
                }
                // It is polled first without a wake-up.
                let woken = Arc::new(Woken(AtomicBool::new(true)));
                self.callers.push(Caller { id, future, outside, woken });
                return self.poll(self.callers.len() - 1);
            }
        };
        assert_eq!(accepted.map_err(given_back), self.model.push(id));
    }

    fn refusal(reason: PushError) -> CallError<usize> {
        if reason == PushError::Full { CallError::Full } else { CallError::Closed }
    }

    fn poll(&mut self, which: usize) {
        if self.callers.is_empty() {
            return;
        }
        let which = which % self.callers.len();
        let is_woken = |caller: &Caller| caller.woken.0.load(Ordering::Relaxed);
        // One waiter is woken for each slot: another may have been for this one.
        let others = self.callers.iter().any(|caller| caller.outside && is_woken(caller));
        let caller = &mut self.callers[which];
        let woken = is_woken(caller);
        if caller.outside {
            match self.model.offer(caller.id) {
                Poll::Pending => {
                    return assert!(poll(&mut caller.future, &caller.woken).is_pending());
                }
                Poll::Ready(Ok(())) => assert!(others, "a slot is free, and no waiter was woken"),
                Poll::Ready(Err(reason)) => {
                    self.model.items[caller.id].reply = Some(Err(Self::refusal(reason)))
                }
            }
            caller.outside = false;
        }
        let reply = self.model.items[caller.id].reply;
        assert!(woken || reply.is_none(), "there is a reply, and it was not woken");
        assert_eq!(
            poll(&mut caller.future, &caller.woken),
            reply.map_or(Poll::Pending, Poll::Ready)
        );
        if reply.is_some() {
            let caller = self.callers.swap_remove(which);
            self.model.returned(caller.id);
        }
    }

    fn is_awaited(&self, id: usize) -> bool {
        self.callers.iter().any(|caller| self.model.sharing(id).any(|of| of == caller.id))
    }

    fn finish(&mut self, number: usize, batch: Batch<Payload, usize, usize>, fate: &Fate) {
        for item in batch.items() {
            assert_eq!(item.is_awaited(), self.is_awaited(item.payload().id));
        }
        let ids: Vec<usize> = batch.payloads().map(|payload| payload.id).collect();
        let results: Vec<bool> = match fate {
            Fate::Complete { results, fit: false } => results.clone(),
            Fate::Complete { results, fit: true } => {
                results.iter().copied().chain(std::iter::repeat(true)).take(ids.len()).collect()
            }
            _ => Vec::new(),
        };
        let word = |index: usize| match fate {
            Fate::Complete { .. } if results.len() != ids.len() => {
                Some(Word::Mismatch { items: ids.len(), results: results.len().min(ids.len() + 1) })
            }
            Fate::Complete { .. } => results.get(index).map(|&good| Word::Complete(good)),
            Fate::Items(words) => words.get(index).copied(),
            Fate::SucceedAll => Some(Word::Succeed),
            Fate::FailAll => Some(Word::Fail),
            Fate::Scatter | Fate::Drop => None,
        };
        if !matches!(fate, Fate::Scatter) {
            for (index, id) in ids.iter().enumerate() {
                self.model.say(*id, word(index).unwrap_or(Word::None));
            }
            assert_eq!(self.model.ended.last(), Some(&number));
        }
        match fate {
            Fate::Complete { .. } => {
                let results = results.iter().enumerate();
                batch.complete(results.map(|(index, &good)| {
                    let id = ids.get(index).copied().unwrap_or(usize::MAX);
                    if good { Ok(id) } else { Err(id) }
                }));
            }
            Fate::Items(_) => {
                for (index, item) in batch.into_iter().enumerate() {
                    let id = item.payload().id;
                    match word(index).unwrap_or(Word::None) {
                        Word::Succeed => item.succeed(id),
                        Word::Fail => item.fail(id),
                        Word::Complete(good) => item.complete(if good { Ok(id) } else { Err(id) }),
                        Word::None | Word::Mismatch { .. } => drop(item),
                    }
                }
            }
            Fate::SucceedAll => batch.succeed_all(|payload| payload.id),
            Fate::FailAll => batch.fail_all(|payload| payload.id),
            Fate::Scatter => {
                for (index, item) in batch.into_iter().enumerate() {
                    assert_eq!(item.index(), index);
                    let (payload, answer) = BatchItem::into_parts(item);
                    self.answers.push((payload.id, answer));
                }
            }
            Fate::Drop => drop(batch),
        }
        self.check_ended();
    }

    /// A batch span ends with its last answer, not later. (Not looked at for ever: it takes a copy
    /// of all.)
    fn check_ended(&self) {
        if self.model.made.len() < 10 {
            let spans = self.exporter.spans().into_iter().filter(|span| span.name == "batch");
            let with_span =
                self.model.ended.iter().filter(|&&number| !self.model.made[number].suppressed);
            assert_eq!(spans.count(), with_span.count());
        }
    }

    fn say(&mut self, id: usize, answer: Answer<usize, usize>, word: Word) {
        self.model.say(id, word);
        match word {
            Word::Succeed => answer.succeed(id),
            Word::Fail => answer.fail(id),
            Word::Complete(good) => answer.complete(if good { Ok(id) } else { Err(id) }),
            Word::None | Word::Mismatch { .. } => drop(answer),
        }
        self.check_ended();
    }

    fn drop_processor(&mut self) {
        if self.processor.take().is_some() {
            let left: Vec<usize> = self.model.parts.drain(..).flat_map(|(_, part)| part).collect();
            let held = self.model.held.iter_mut().flat_map(|held| held.groups.drain(..)).flatten();
            let left = left.into_iter().chain(held).chain(self.model.waiting.drain(..));
            let left: Vec<usize> = left.collect();
            for id in left {
                self.model.failed += 1;
                self.model.items[id].reply = Some(Err(CallError::Closed));
            }
            self.model.queue.discard();
        }
    }

    fn check_stats(&self) {
        let of_submitter = || self.submitters.first().map(Submitter::stats);
        let Some(stats) = self.processor.as_ref().map(BatchProcessor::stats).or_else(of_submitter)
        else {
            return;
        };
        let model = &self.model;
        assert_eq!((stats.succeeded(), stats.failed()), (model.succeeded, model.failed));
        assert_eq!((stats.canceled(), stats.coalesced()), (model.canceled, model.coalesced()));
        let queue = &model.queue;
        let pending = queue.pending() + model.held.as_ref().map_or(0, Held::len);
        let taken = queue.accepted - pending as u64;
        assert_eq!(stats.in_flight(), taken - model.succeeded - model.failed - model.canceled);
        let stats = stats.queue();
        assert_eq!(stats.pending(), pending as u64);
        assert_eq!((stats.accepted(), stats.invalid()), (queue.accepted, 0));
        assert_eq!(stats.handler_panics(), 0);
        assert_eq!(
            (stats.rejected_full(), stats.rejected_closed()),
            (queue.rejected_full, queue.rejected_closed)
        );
        let sum = |count: fn(&Counts) -> u64| {
            model.made.iter().map(|made| count(&made.counts)).sum::<u64>()
        };
        let counts = stats.counts();
        assert_eq!(
            (counts.linked, counts.duplicates),
            (sum(|made| made.linked), sum(|made| made.duplicates))
        );
        assert_eq!(
            (counts.truncated, counts.invalid),
            (sum(|made| made.truncated), sum(|made| made.invalid))
        );
        assert_eq!((counts.unsampled, counts.attribute_panics), (sum(|made| made.unsampled), 0));
        assert_eq!(counts.trace_states_cut, sum(|made| made.trace_states_cut));
        for &trigger in Trigger::ALL {
            let made = model.made.iter().filter(|made| made.trigger == trigger).count();
            assert_eq!(stats.flushes(trigger), made as u64, "{trigger}");
        }
    }
}

impl Model {
    /// The items that have the answer of this one, itself the first.
    fn sharing(&self, id: usize) -> impl Iterator<Item = usize> {
        std::iter::once(id).chain(self.items[id].others.iter().copied())
    }

    /// Whether all of them were submitted where telemetry is suppressed.
    fn is_suppressed(&self, id: usize) -> bool {
        self.sharing(id).all(|id| self.items[id].suppressed)
    }

    fn coalesced(&self) -> u64 {
        self.made.iter().map(|made| made.coalesced as u64).sum()
    }

    fn push(&mut self, id: usize) -> Result<(), PushError> {
        let Known { context, payload, .. } = &self.items[id];
        self.queue.push_heavy(0, Link::with_context(context.clone()), payload.weight)?;
        self.waiting.push_back(id);
        Ok(())
    }

    /// As `push`, by a caller that waits for a free slot: a full shard is no refusal.
    fn offer(&mut self, id: usize) -> Poll<Result<(), PushError>> {
        let refused = self.queue.rejected_full;
        match self.push(id) {
            Err(PushError::Full) => {
                self.queue.rejected_full = refused;
                Poll::Pending
            }
            offered => Poll::Ready(offered),
        }
    }

    /// What `next_batch_timeout` answers: the trigger, or that it is closed, or nothing yet.
    fn due(&mut self) -> Option<Option<Trigger>> {
        if let Some((trigger, _)) = self.parts.front() {
            return Some(Some(*trigger));
        }
        if self.held.is_some() {
            return self.due_by_key();
        }
        // A batch that all callers have left is none.
        while self.parts.is_empty() {
            match self.queue.due().ok()? {
                Some(trigger) => self.take(trigger),
                None => return Some(None),
            }
        }
        self.parts.front().map(|(trigger, _)| Some(*trigger))
    }

    /// As `due`, with triggers for each key.
    fn due_by_key(&mut self) -> Option<Option<Trigger>> {
        let flushed = self.queue.is_flush_asked();
        let holds = self.held.as_ref().is_some_and(|held| held.len() > 0);
        let trigger = match self.queue.due() {
            _ if holds && flushed => Trigger::Manual,
            Ok(None) if holds => Trigger::Shutdown,
            Ok(None) => return Some(None),
            Ok(Some(trigger)) => trigger,
            Err(_) => return None,
        };
        self.hold(trigger);
        self.due()
    }

    /// Takes all out of the queue, and what is then due of each key.
    fn hold(&mut self, trigger: Trigger) {
        self.queue.take(vec![0; self.queue.pending()]);
        let held = self.held.as_mut().expect("by key");
        let payload = |id: usize| &self.items[id].payload;
        for id in self.waiting.drain(..) {
            let key = payload(id).key;
            match held.groups.iter_mut().find(|group| payload(group[0]).key == key) {
                Some(group) => group.push_back(id),
                None => held.groups.push([id].into()),
            }
        }
        let weight = |id: usize| payload(id).weight.min(1 << 38);
        let all = matches!(trigger, Trigger::Manual | Trigger::Shutdown).then_some(trigger);
        let all = all.or(held.early);
        let (size, max_weight) = (held.size, held.max_weight);
        let take = |group: &mut VecDeque<usize>| {
            let mut heavy = 0;
            let fits = group.iter().take(size).take_while(|id| {
                heavy += weight(**id);
                heavy <= max_weight
            });
            let fits = fits.count().max(1);
            group.drain(..fits).collect::<Vec<_>>()
        };
        for group in &mut held.groups {
            while !group.is_empty() {
                let heavy = group.iter().map(|id| weight(*id)).sum::<u64>() >= max_weight;
                let Some(trigger) = (group.len() >= size)
                    .then_some(Trigger::Size)
                    .or(heavy.then_some(Trigger::Weight))
                    .or(all)
                else {
                    break;
                };
                self.parts.push_back((trigger, take(group)));
            }
        }
        while held.len() > held.capacity {
            let oldest = held.groups.iter_mut().find(|group| !group.is_empty()).expect("some");
            self.parts.push_back((Trigger::Policy, take(oldest)));
        }
        held.groups.retain(|group| !group.is_empty());
        if self.skip_canceled {
            for (_, part) in &mut self.parts {
                let all = part.len();
                part.retain(|&id| !self.items[id].left);
                self.canceled += (all - part.len()) as u64;
            }
            self.parts.retain(|(_, part)| !part.is_empty());
        }
    }

    fn available(&mut self) -> Option<Trigger> {
        while self.parts.is_empty() {
            self.queue.look();
            let held = self.held.as_ref().map(Held::len);
            if self.queue.pending() + held.unwrap_or(0) == 0 {
                return None;
            }
            match held {
                Some(_) => self.hold(Trigger::Manual),
                None => self.take(Trigger::Manual),
            }
        }
        self.parts.front().map(|(trigger, _)| *trigger)
    }

    /// Out of the queue, and divided by key in the order in which keys are first met.
    fn take(&mut self, trigger: Trigger) {
        let size = self.queue.next_size();
        self.queue.take(vec![0; size]);
        for id in self.waiting.drain(..size) {
            if self.skip_canceled && self.items[id].left {
                self.canceled += 1;
                continue;
            }
            let key = |id: usize| self.items[id].payload.key;
            let parts = &mut self.parts;
            match parts.iter_mut().find(|(_, part)| !self.by_key || key(part[0]) == key(id)) {
                Some((_, part)) => part.push(id),
                None => self.parts.push_back((trigger, vec![id])),
            }
        }
    }

    /// The call of this item has returned, or was dropped: what its span leads to is decided.
    fn returned(&mut self, id: usize) {
        let number = self.items[id].batch;
        let number = number.filter(|&number| !self.made[number].suppressed);
        let item = &mut self.items[id];
        item.left = true;
        item.back_link = number.filter(|_| self.back_links && item.is_current && !item.suppressed);
        self.early_links += u64::from(item.back_link.is_some() && item.reply.is_none());
    }

    /// The items of the next batch that its handler gets.
    fn make(&mut self) -> Vec<usize> {
        let (trigger, ids) = self.parts.pop_front().expect("one is due");
        for &id in &ids {
            self.items[id].batch = Some(self.made.len());
            self.links.insert(Link::with_context(self.items[id].context.clone()));
        }
        let (mut links, counts) = self.links.finish();
        if self.places {
            links.iter_mut().enumerate().for_each(|(place, link)| add_place(link, place));
        }
        let mut handled: Vec<usize> = Vec::new();
        for &id in &ids {
            let group = |id: usize| self.items[id].payload.group();
            match handled.iter().find(|&&first| self.coalesce && group(first) == group(id)) {
                Some(&first) => self.items[first].others.push(id),
                None => handled.push(id),
            }
        }
        self.made.push(Made {
            items: ids.len(),
            coalesced: ids.len() - handled.len(),
            links,
            counts,
            trigger,
            answered: 0,
            succeeded: 0,
            suppressed: ids.iter().all(|&id| self.items[id].suppressed),
            status: Status::Unset,
            first_failure: None,
        });
        handled
    }

    /// The number of the batch, from 0.
    fn check_batch(&mut self, batch: &Batch<Payload, usize, usize>) -> usize {
        let ids = self.make();
        let (number, counts) = (self.made.len(), self.made[self.made.len() - 1].counts);
        assert_eq!(
            (batch.number(), batch.len(), batch.counts()),
            (number as u64, ids.len(), counts)
        );
        for (item, id) in batch.items().iter().zip(ids) {
            assert_eq!(*item.payload(), self.items[id].payload);
            assert_eq!(
                *item.span_context(),
                oracle::with_short_state(self.items[id].context.clone()).0
            );
        }
        number - 1
    }

    /// `run_async`, until nothing is left: each handler answers some polls after it began. No more
    /// of them are in flight than are allowed, and as many as there are batches for.
    fn run_async(&mut self, mut processor: Processor) {
        let (model, in_flight) = (RefCell::new(&mut *self), Cell::new(0));
        let most = model.borrow().at_once;
        let run = processor.run_async(async |batch| {
            let number = {
                let model = &mut *model.borrow_mut();
                assert_eq!(model.due(), Some(Some(batch.trigger())));
                model.check_batch(&batch)
            };
            in_flight.set(in_flight.get() + 1);
            assert!(in_flight.get() <= most);
            for _ in 0..(number * 7) % 5 {
                let mut yielded = false;
                poll_fn(|cx| {
                    if !std::mem::replace(&mut yielded, true) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
            }
            in_flight.set(in_flight.get() - 1);
            let model = &mut *model.borrow_mut();
            batch.payloads().for_each(|payload| model.say(payload.id, Word::Succeed));
            batch.succeed_all(|payload| payload.id);
        });
        assert!(poll(&mut Box::pin(run), &Arc::default()).is_ready(), "it waits, closed");
        assert_eq!(self.due(), Some(None));
    }

    /// `run` or `run_each`, until nothing is left.
    fn run(&mut self, mut processor: Processor, how: HowToEnd, spans: &mut Vec<ItemSpan>) {
        if let HowToEnd::RunAsync = how {
            return self.run_async(processor);
        }
        // Batches in flight, and what is left of them: place and id.
        let mut expected: HashMap<usize, VecDeque<(usize, usize)>> = HashMap::new();
        // What waits for ever, the rest of its batch, and its span, by the batch's number.
        let mut stalled: BTreeMap<usize, (usize, Vec<usize>, Option<ItemSpan>)> = BTreeMap::new();
        let most = self.at_once;
        // The result, or that the handler waits for ever. Without an item: the handlers were
        // dropped.
        let mut handle = |item: Option<(Payload, &Context)>| {
            let Some((payload, cx)) = item else {
                for (id, left, span) in std::mem::take(&mut stalled).into_values() {
                    spans.extend(span);
                    let dropped = || Failure::new("dropped", DROPPED);
                    self.reply(id, Err(CallError::Unanswered), dropped);
                    left.into_iter().for_each(|id| self.say(id, Word::None));
                }
                return None;
            };
            // More than one, if a batch yielded before its first item.
            while self.items[payload.id].batch.is_none() {
                assert!(self.due().flatten().is_some(), "nothing was left");
                let ids = self.make().into_iter().enumerate().collect();
                expected.insert(self.made.len() - 1, ids);
                assert!(expected.len() + stalled.len() <= most, "too many are in flight");
            }
            let batch = self.items[payload.id].batch.expect("made");
            let left = expected.get_mut(&batch).expect("in flight");
            let (index, id) = left.pop_front().expect("a batch has items");
            let left = if left.is_empty() { expected.remove(&batch) } else { None };
            assert_eq!(payload, self.items[id].payload);
            assert_eq!(cx.is_telemetry_suppressed(), self.is_suppressed(id));
            let cancelled = matches!(how, HowToEnd::Cancel) && id % 4 == 1;
            let span = cx.span().span_context().span_id();
            let mut span =
                (!self.is_suppressed(id)).then_some(ItemSpan { id, index, batch, span, cancelled });
            if !cancelled {
                spans.extend(span.take());
            }
            if id % 5 == 0 {
                cx.span().set_status(Status::error(PARTIAL));
            }
            let result = if id % 3 == 0 { Err(id) } else { Ok(id) };
            match (cancelled, result) {
                (true, _) => {
                    let left = left.or_else(|| expected.remove(&batch)).unwrap_or_default();
                    let left = left.into_iter().map(|(_, id)| id).collect();
                    stalled.insert(batch, (id, left, span));
                }
                (_, Ok(_)) => self.say(id, Word::Succeed),
                // It is recorded on the item's own span.
                (_, Err(_)) => {
                    self.reply(id, Err(CallError::Failed(id)), || Failure::new(OTHER, id))
                }
            }
            (!cancelled).then_some(result)
        };
        let waits = "no item waits";
        match how {
            HowToEnd::RunEach => {
                processor.run_each(|payload, cx| handle(Some((payload, cx))).expect(waits))
            }
            HowToEnd::RunEachAsync => {
                let run = processor.run_each_async(|payload, cx| {
                    ready(handle(Some((payload, &cx))).expect(waits))
                });
                assert!(poll(&mut Box::pin(run), &Arc::default()).is_ready(), "it waits, closed");
            }
            HowToEnd::Cancel => loop {
                let run = processor.run_each_async(|payload, cx| {
                    let result = handle(Some((payload, &cx)));
                    async move { if let Some(result) = result { result } else { pending().await } }
                });
                let done = poll(&mut Box::pin(run), &Arc::default()).is_ready();
                handle(None);
                if done {
                    break;
                }
            },
            _ => processor.run(|batch| {
                let current = Context::current();
                assert_eq!(current.span().span_context(), batch.context().span().span_context());
                assert_eq!(self.due(), Some(Some(batch.trigger())));
                let number = self.check_batch(&batch);
                assert_eq!(current.is_telemetry_suppressed(), self.made[number].suppressed);
                batch.payloads().for_each(|payload| self.say(payload.id, Word::Succeed));
                batch.succeed_all(|payload| payload.id);
            }),
        }
        assert_eq!((self.due(), expected.len()), (Some(None), 0));
    }

    /// What becomes of an item by this.
    fn say(&mut self, id: usize, word: Word) {
        let reply = match word {
            Word::Succeed | Word::Complete(true) => Ok(id),
            Word::Fail | Word::Complete(false) => Err(CallError::Failed(id)),
            Word::None => Err(CallError::Unanswered),
            Word::Mismatch { items, results } => Err(CallError::ResultCount { items, results }),
        };
        self.reply(id, reply, || match reply {
            Err(CallError::Failed(id)) => Failure { recorded: true, ..Failure::new(OTHER, id) },
            Err(error @ CallError::ResultCount { .. }) => Failure::new("result_count", error),
            Err(error) => Failure::new("unanswered", error),
            Ok(_) => unreachable!("it succeeded"),
        });
    }

    fn reply(&mut self, id: usize, reply: Reply, why: impl FnOnce() -> Failure) {
        let number = self.items[id].batch.expect("in a batch");
        let made = &mut self.made[number];
        if reply.is_err() {
            made.first_failure.get_or_insert_with(why);
        }
        for id in self.sharing(id).collect::<Vec<_>>() {
            assert!(self.items[id].reply.replace(reply).is_none(), "answered twice");
            let made = &mut self.made[number];
            made.answered += 1;
            made.succeeded += usize::from(reply.is_ok());
            *if reply.is_ok() { &mut self.succeeded } else { &mut self.failed } += 1;
        }
        let made = &self.made[number];
        if made.answered == made.items {
            self.ended.push(number);
        }
    }
}

impl Failure {
    fn new(error_type: &'static str, text: impl ToString) -> Self {
        Self { text: text.to_string(), error_type, recorded: false }
    }

    fn status(&self, failed: usize) -> Status {
        Status::error(match failed {
            1 => format!("1 item failed: {}", self.text),
            _ => format!("{failed} items failed, first: {}", self.text),
        })
    }
}

const NUMBER: &str = "batch.number";
const PLACE: &str = "place";
/// A failure that the user sets on a span: a handler does for one item in five.
const PARTIAL: &str = "partial";
/// The `error.type` of an error that has none of its own.
const OTHER: &str = "_OTHER";
const DROPPED: &str = "dropped before it finished";

fn add_place(link: &mut Link, place: usize) {
    link.attributes.insert(0, KeyValue::new(PLACE, place as i64));
}

/// Polls once more where the future only yields to other tasks: it has woken its own.
fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>, woken: &Arc<Woken>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(woken));
    let mut cx = task::Context::from_waker(&waker);
    loop {
        woken.0.store(false, Ordering::Relaxed);
        let poll = future.as_mut().poll(&mut cx);
        if poll.is_ready() || !woken.0.load(Ordering::Relaxed) {
            return poll;
        }
    }
}

/// Batch spans say what became of the batch, in the order in which they ended; item spans are below
/// theirs and lead to the item's request. How many of these lead to an invalid context.
fn check_spans(model: &Model, spans: &[SpanData], items: &[ItemSpan]) -> usize {
    let mut invalid_links = 0;
    let (batches, item_spans): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.name == "batch");
    let ended: Vec<usize> =
        model.ended.iter().copied().filter(|&number| !model.made[number].suppressed).collect();
    assert_eq!((batches.len(), item_spans.len()), (ended.len(), items.len()));
    let mut ids = HashMap::new();
    for (span, number) in batches.into_iter().zip(ended) {
        let Made { items, links, counts, trigger, succeeded, status, first_failure, .. } =
            &model.made[number];
        let coalesced = model.made[number].coalesced;
        let (failed, rate) = (items - succeeded, *succeeded as f64 / *items as f64);
        let mut attributes = oracle::attributes(counts, trigger.as_str());
        attributes.push(KeyValue::new(NUMBER, number as i64 + 1));
        if coalesced > 0 {
            attributes.push(KeyValue::new("batch.coalesced", coalesced as i64));
        }
        attributes.push(KeyValue::new("batch.succeeded", *succeeded as i64));
        attributes.push(KeyValue::new("batch.failed", failed as i64));
        attributes.push(KeyValue::new("batch.success_rate", rate));
        attributes
            .extend(first_failure.as_ref().map(|why| KeyValue::new("error.type", why.error_type)));
        assert_eq!((&span.attributes, &span.links.links), (&attributes, links));
        let status = match (status, first_failure) {
            (Status::Unset, Some(failure)) => failure.status(failed),
            (set, _) => set.clone(),
        };
        let parent = expected_parent(model.parent, links, counts);
        assert_eq!((&span.status, span.parent_span_id), (&status, parent.span_id()));
        if parent.is_valid() {
            assert_eq!(span.span_context.trace_id(), parent.trace_id());
            assert_eq!(span.span_context.trace_state(), parent.trace_state());
            assert_eq!(span.parent_span_is_remote, parent.is_remote());
        }
        let recorded = first_failure.as_ref().filter(|failure| failure.recorded);
        let events: Vec<_> =
            span.events.iter().map(|event| (&*event.name, &event.attributes)).collect();
        let exception = recorded.map(|failure| exception(&failure.text));
        assert_eq!(
            events,
            Vec::from_iter(exception.as_ref().map(|exception| ("exception", exception)))
        );
        ids.insert(number, span.span_context.span_id());
    }
    for (span, expected) in item_spans.into_iter().zip(items) {
        let ItemSpan { id, index, batch, span: span_id, cancelled } = expected;
        assert_eq!((span.span_context.span_id(), span.parent_span_id), (*span_id, ids[batch]));
        // It stands for one item, or for those of a key: each span is linked once, the first stay.
        let policy = oracle::Policy {
            link_count: false,
            dedup: Dedup::ByContext,
            truncation: Truncation::KeepFirst,
            ..model.policy.clone()
        };
        let mut set = oracle::LinkSet::new(policy);
        for id in model.sharing(*id) {
            set.insert(Link::with_context(model.items[id].context.clone()));
        }
        let mut links = set.finish().0;
        if model.places {
            links.iter_mut().for_each(|link| add_place(link, *index));
        }
        assert_eq!(span.links.links, links);
        invalid_links += span.links.iter().filter(|link| !link.span_context.is_valid()).count();
        let text = id.to_string();
        let failed = ("item.failed", vec![KeyValue::new("error", text.clone())]);
        let (expected, failure) = match (cancelled, id % 3) {
            (true, _) => {
                let failed = ("item.failed", vec![KeyValue::new("error", DROPPED)]);
                (vec![failed], Some(("dropped", DROPPED)))
            }
            (_, 0) => (vec![failed, ("exception", exception(&text))], Some((OTHER, &*text))),
            _ => (vec![("item.succeeded", vec![])], None),
        };
        let events: Vec<_> =
            span.events.iter().map(|event| (&*event.name, event.attributes.clone())).collect();
        assert_eq!(events, expected);
        let mut attributes = vec![KeyValue::new("item.index", *index as i64)];
        attributes.extend(failure.map(|(error_type, _)| KeyValue::new("error.type", error_type)));
        assert_eq!(span.attributes, attributes);
        let status = match failure {
            _ if id % 5 == 0 => Status::error(PARTIAL),
            Some((_, text)) => Status::error(text.to_owned()),
            None => Status::Unset,
        };
        assert_eq!(span.status, status);
    }
    invalid_links
}

/// The parent of a batch span that is started where no span is current.
fn expected_parent(parent: Parent, links: &[Link], counts: &Counts) -> SpanContext {
    let mut contexts = links.iter().map(|link| link.span_context.clone());
    let ids = |context: &SpanContext| (context.trace_id(), context.span_id());
    let found = match parent {
        Parent::First => contexts.find(SpanContext::is_valid),
        Parent::Only if counts.linked + counts.duplicates == counts.received => {
            let first = contexts.next();
            let same = |first: &SpanContext| contexts.all(|other| ids(&other) == ids(first));
            first.filter(SpanContext::is_valid).filter(same)
        }
        _ => None,
    };
    found.unwrap_or(SpanContext::NONE)
}

/// The spans of calls lead to their batches. How many do.
fn check_back_links(model: &Model, spans: &[SpanData]) -> usize {
    let number = |span: &SpanData| {
        let number = span.attributes.iter().find(|attribute| attribute.key.as_str() == NUMBER);
        number.map(|number| (number.value.clone(), span.span_context.clone()))
    };
    let batches: Vec<_> = spans.iter().filter_map(number).collect();
    let mut linked = 0;
    for item in &model.items {
        let links = item.span.links.lock().expect("no panic");
        let expected = item.back_link.map(|number| {
            let number = Value::from(number as i64 + 1);
            let found = batches.iter().find(|(of, _)| *of == number);
            let context = found.expect("it has a span").1.clone();
            Link::new(context, vec![KeyValue::new("link.type", "batch")], 0)
        });
        assert_eq!(*links, Vec::from_iter(expected));
        linked += links.len();
    }
    linked
}

/// The attributes of the event, by the semantic conventions.
fn exception(text: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("exception.type", "usize"),
        KeyValue::new("exception.message", text.to_owned()),
    ]
}
