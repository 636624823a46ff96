//! Whose turn it is on a connection to the admin address, and until when.
//!
//! A client has little time for its first request and for reading an answer, and longer between two requests. Who has
//! an answer and asks for nothing gives way to newcomers, as one does that has not said anything yet.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::admission::places::ConnectionPlace;

/// From accept to the end of the first request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(2);

/// From there to the last byte of the answer; for a stream, to the next event that is read.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// From there to the end of the next request's head: two scrapes a minute apart share a connection.
const IDLE_LIMIT: Duration = Duration::from_secs(150);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConversationStage {
    /// A request is to come.
    Asking,
    /// It has come.
    Answering,
    /// The answer is there, and its bytes are on their way.
    Writing,
    /// The answer has no end.
    Streaming,
}

#[derive(Debug)]
struct ConversationState {
    stage: ConversationStage,
    until: Instant,
    place: ConnectionPlace,
}

/// The requests and answers of one connection.
#[derive(Debug, Clone)]
pub(super) struct Conversation(Arc<Mutex<ConversationState>>);

impl Conversation {
    pub(super) fn new(place: ConnectionPlace) -> Self {
        Self(Arc::new(Mutex::new(ConversationState {
            stage: ConversationStage::Asking,
            until: Instant::now() + HEAD_LIMIT,
            place,
        })))
    }

    /// A request's head is whole.
    // ## Asking => Answering
    pub(super) fn asked(&self) {
        let mut state = self.state();
        state.place.speak();
        state.stage = ConversationStage::Answering;
        state.until = Instant::now() + ANSWER_LIMIT;
    }

    /// The answer is a stream. `false`: the connection has just given way.
    // ## Answering => Streaming
    pub(super) fn streams(&self) -> bool {
        let mut state = self.state();
        state.stage = ConversationStage::Streaming;
        state.place.settle()
    }

    /// The answer is there.
    // ## Answering => Writing
    pub(super) fn answered(&self) {
        let mut state = self.state();
        if state.stage == ConversationStage::Answering {
            state.stage = ConversationStage::Writing;
        }
    }

    /// The kernel has all that was written.
    // ## Writing => Asking
    fn flushed(&self) {
        let mut state = self.state();
        if state.stage == ConversationStage::Writing {
            state.place.rest();
            state.stage = ConversationStage::Asking;
            state.until = Instant::now() + IDLE_LIMIT;
        }
    }

    /// An event was read.
    pub(super) fn renew(&self) {
        self.state().until = Instant::now() + ANSWER_LIMIT;
    }

    /// Runs `work` up to its end, or to the end of somebody's time.
    pub(super) async fn within(self, work: impl Future<Output = ()>) {
        let (mut work, mut alarm) = (pin!(work), pin!(sleep_until(self.state().until)));
        std::future::poll_fn(|cx| {
            if work.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // The work may have passed the turn on, and another task may renew it.
            loop {
                let until = self.state().until;
                if alarm.deadline() != until {
                    alarm.as_mut().reset(until);
                }
                ready!(alarm.as_mut().poll(cx));
                if self.state().until == until {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, ConversationState> {
        self.0.lock().expect("no panic while held")
    }
}

/// A stream that passes the turn on when an answer has left.
#[derive(Debug)]
pub(super) struct ConversationStream<S> {
    pub stream: S,
    pub conversation: Conversation,
}

impl<S: AsyncRead + Unpin> AsyncRead for ConversationStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ConversationStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes behind the last byte of an answer, and not before that: answers other than streams are whole.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.conversation.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::admission::places::{Places, Room, WhenFull};

    fn conversation() -> (Conversation, crate::admission::places::Eviction) {
        let room = Room { clients: 1, spare: 1, of_address: None };
        let (place, eviction) = Places::new(WhenFull::Oldest).enter(None, room).unwrap();
        (Conversation::new(place), eviction)
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_may_stay_and_who_does_not_must_go() {
        let ((conversation, _eviction), start) = (conversation(), Instant::now());
        let reads = conversation.clone();
        let work = async move {
            reads.asked();
            assert!(reads.streams());
            for _ in 0..20 {
                sleep(Duration::from_secs(1)).await;
                reads.renew();
            }
            sleep(Duration::from_secs(3600)).await;
        };
        conversation.within(work).await;
        assert_eq!(start.elapsed(), Duration::from_secs(20) + ANSWER_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn each_turn_has_its_time() {
        let pending = std::future::pending::<()>;
        let ((silent, _eviction), start) = (conversation(), Instant::now());
        silent.within(pending()).await;
        assert_eq!(start.elapsed(), HEAD_LIMIT);

        // The kernel takes four bytes, and then no more.
        for (takes, limit) in [(4, IDLE_LIMIT), (3, ANSWER_LIMIT)] {
            let ((conversation, _eviction), start) = (conversation(), Instant::now());
            let (near, _far) = duplex(takes);
            let mut stream = ConversationStream { stream: near, conversation: conversation.clone() };
            let answers = conversation.clone();
            conversation
                .within(async move {
                    answers.asked();
                    answers.answered();
                    stream.write_all(b"1234").await.unwrap();
                    stream.flush().await.unwrap();
                    pending().await
                })
                .await;
            assert_eq!(start.elapsed(), limit);
        }

        let ((conversation, _eviction), start) = (conversation(), Instant::now());
        let asks = conversation.clone();
        conversation
            .within(async move {
                asks.asked();
                asks.answered();
                asks.flushed();
                sleep(Duration::from_secs(60)).await;
                asks.asked();
                pending().await
            })
            .await;
        assert_eq!(start.elapsed(), Duration::from_secs(60) + ANSWER_LIMIT, "a turn may be shorter than the last");
    }
}
