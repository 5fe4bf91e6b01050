//! Replies to the requests of one transaction, as they come in.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use crate::backend::{Failure, ReplySink};

/// Collects what arrives, and wakes the one task that waits for it. Bounded by the number of
/// requests its owner has out.
pub struct Inbox<T> {
    arrived: RefCell<VecDeque<T>>,
    task: RefCell<Option<Waker>>,
}

impl<T> Inbox<T> {
    /// An empty one.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            arrived: RefCell::default(),
            task: RefCell::default(),
        })
    }

    /// Puts something in.
    pub fn push(&self, item: T) {
        self.arrived.borrow_mut().push_back(item);
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// The next arrival; None when nothing has come until then.
    pub async fn next(&self, until: Option<Instant>) -> Option<T> {
        let take = poll_fn(|cx| match self.arrived.borrow_mut().pop_front() {
            Some(item) => Poll::Ready(item),
            None => {
                *self.task.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        match until {
            None => Some(take.await),
            Some(until) => tokio::time::timeout_at(until, take).await.ok(),
        }
    }
}

/// A reply to a request that went over a link, with the number it was sent under.
pub type Reply = (u64, Result<Bytes, Failure>);

impl<T: From<Reply>> ReplySink for Inbox<T> {
    fn deliver(self: Rc<Self>, number: u64, reply: &[u8]) {
        self.push(T::from((number, Ok(Bytes::copy_from_slice(reply)))));
    }

    fn fail(self: Rc<Self>, number: u64, failure: &Failure) {
        self.push(T::from((number, Err(failure.clone()))));
    }
}
