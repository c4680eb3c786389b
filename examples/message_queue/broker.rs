//! A broker within the process: one queue, delivered at least once.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

pub(crate) const SYSTEM: &str = "in_process";
/// The only one.
pub(crate) const PARTITION: &str = "0";

/// What travels: bytes, and headers whose values are bytes, as in Kafka, NATS and AMQP.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The consumer's end.
pub(crate) struct Queue(Receiver<Message>);

/// A queue that delivers every `redeliver_every`th message a second time, as after a connection
/// that broke before the acknowledgement; 0: none. It ends with its last sender.
pub(crate) fn start(redeliver_every: usize) -> (Sender<Message>, Queue) {
    let (sender, inbox) = mpsc::channel::<Message>();
    let (outbox, queue) = mpsc::channel();
    thread::spawn(move || {
        for (number, message) in (1..).zip(inbox) {
            let again =
                (redeliver_every > 0 && number % redeliver_every == 0).then(|| message.clone());
            for delivery in [Some(message), again].into_iter().flatten() {
                if outbox.send(delivery).is_err() {
                    return; // the consumer has gone
                }
            }
        }
    });
    (sender, Queue(queue))
}

impl Queue {
    /// Waits for `max` messages, or for the queue to end: then it returns the rest, and at last
    /// none.
    pub(crate) fn poll(&self, max: usize) -> Vec<Message> {
        self.0.iter().take(max).collect()
    }
}
