//! One question to a shard, and its answer.

use std::rc::Rc;

use bytes::Bytes;

use super::Engine;
use super::inbox::{Inbox, Reply};
use crate::backend::{Cause, Failure, How, Link};
use crate::resp::Protocol;

impl Engine {
    /// Sends a request over a link and waits for its reply.
    pub async fn ask(&self, shard: u16, request: &[u8]) -> Result<Bytes, Failure> {
        // A client that is slow would be waited for, or its reply be collected. But better that than
        // no answer, when every pinned connection is in use.
        if self.link(shard).is_streaming()
            && let Ok(mut connection) = self.pool(shard).get(Protocol::Resp2).await
        {
            let mut replies = connection.exchange(request, 1).await?;
            connection.give_back();
            return replies.pop().ok_or_else(no_reply);
        }
        ask_over(self.link(shard), request).await
    }
}

/// Sends a request over a link and waits for its reply.
///
/// # Errors
/// There is none.
pub async fn ask_over(link: &Rc<Link>, request: &[u8]) -> Result<Bytes, Failure> {
    ask_as(link, request, How::PLAIN).await
}

/// The same for a request of this kind.
///
/// # Errors
/// There is none.
pub async fn ask_as(link: &Rc<Link>, request: &[u8], how: How) -> Result<Bytes, Failure> {
    let inbox = Inbox::<Reply>::new();
    link.send(&[request], how, Rc::<Inbox<Reply>>::clone(&inbox), 0)?;
    match inbox.next(None).await {
        Some((_, reply)) => reply,
        None => Err(no_reply()),
    }
}

pub(super) fn no_reply() -> Failure {
    Failure::MaybeSent(Cause::new("no reply"))
}
