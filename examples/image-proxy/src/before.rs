//! What the mechanisms replaced, for builds with controls only.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::origin::FetchError;

/// A result over a channel without capacity: the sender waits until it is received, for ever if its receiver is dropped.
pub(crate) async fn rendezvous<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let meeting = Arc::new((Mutex::new(None), Notify::new(), Notify::new()));
    let sender = meeting.clone();
    tokio::spawn(async move {
        let answer = work.await;
        *sender.0.lock() = Some(answer);
        sender.1.notify_one();
        sender.2.notified().await;
    });
    meeting.1.notified().await;
    let answer = meeting.0.lock().take().expect("it is there when this is woken");
    meeting.2.notify_one();
    answer
}

/// The permit is taken inside the task, so that there are as many tasks as work.
pub(crate) fn spawn_then_wait(work: impl Future<Output = ()> + Send + 'static) {
    static PERMITS: Semaphore = Semaphore::const_new(10);
    tokio::spawn(async move {
        let _permit = PERMITS.acquire().await;
        work.await;
    });
}

/// The body is read to its end whether or not the client is still there.
pub(crate) fn read_to_the_end<S>(mut body: S) -> BoxStream<'static, Result<Bytes, FetchError>>
where
    S: Stream<Item = Result<Bytes, FetchError>> + Send + Unpin + 'static,
{
    let (pieces, client) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(piece) = body.next().await {
            drop(pieces.send(piece).await);
        }
    });
    stream::unfold(client, |mut client| async move { client.recv().await.map(|piece| (piece, client)) }).boxed()
}

/// The error path forgets to close what it had opened.
pub(crate) fn leave_open(opened: impl Send + 'static) {
    static OPEN: Mutex<Vec<Box<dyn Send>>> = Mutex::new(Vec::new());
    OPEN.lock().push(Box::new(opened));
}
