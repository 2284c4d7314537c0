//! The source's thread: pulls, slices, and pulls again when the stream ends.
//!
//! It waits when the team's thread is behind, so that the server's TCP window, not our memory, holds what is early.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use mio::Waker;
use relay_wire::http::{HttpUrl, ResponseBuilder, Version};
use splitter::rules::Source;

use crate::args::{Plan, announced};
use crate::backoff::Backoff;
use crate::pull::Pull;
use crate::slicer::{Beginning, Slicer};

/// What the team is told.
#[derive(Debug)]
pub(crate) enum News {
    /// A stream begins; newcomers are to be told this source, if it is not fixed.
    Begins(Option<Source>),
    /// The beginning of its answer, for newcomers.
    Header(Vec<u8>),
    /// One chunk's data.
    Chunk(Vec<u8>),
    /// There is no stream: why, how many bytes were too few for a chunk, and when it is tried again.
    Ended {
        why: String,
        discarded: usize,
        again: Duration,
    },
}

struct Worker {
    url: HttpUrl,
    fixed: bool,
    /// Bytes of header to keep for newcomers; 0: they ask the source themselves.
    header_bytes: u16,
    slicer: Slicer,
    backoff: Backoff,
    news: SyncSender<News>,
    waker: Arc<Waker>,
}

/// The thread ends when the receiver of `news` is gone.
///
/// # Errors
///
/// When there can be no thread.
pub(crate) fn start(plan: &Plan, news: SyncSender<News>, waker: Arc<Waker>) -> io::Result<()> {
    let mut worker = Worker {
        url: plan.url.clone(),
        fixed: plan.fixed,
        header_bytes: if plan.config.send_header {
            plan.config.header_bytes
        } else {
            0
        },
        slicer: Slicer::new(plan.config.chunk_bytes),
        backoff: Backoff::new(),
        news,
        waker,
    };
    let run = move || while worker.turn() {};
    std::thread::Builder::new()
        .name("source".into())
        .spawn(run)
        .map(drop)
}

/// Whether the team was there to hear it.
fn tell(news: &SyncSender<News>, waker: &Waker, what: News) -> bool {
    news.send(what).is_ok() && waker.wake().is_ok()
}

impl Worker {
    /// One pull and the wait after it; whether to go on.
    fn turn(&mut self) -> bool {
        let why = match self.pull() {
            Ok(()) => "the stream ended".to_owned(),
            Err(why) => why,
        };
        let (again, discarded) = (self.backoff.wait(), self.slicer.discard());
        let heard = tell(
            &self.news,
            &self.waker,
            News::Ended {
                why,
                discarded,
                again,
            },
        );
        if heard {
            std::thread::sleep(again);
        }
        heard
    }

    fn pull(&mut self) -> Result<(), String> {
        let pull = Pull::open(&self.url)?;
        let source = announced(&pull.url, pull.endpoint)?;
        tell(
            &self.news,
            &self.waker,
            News::Begins((!self.fixed).then_some(source)),
        );
        let head =
            ResponseBuilder::with_version(Version::Http10, 200).header("Content-Type", &pull.content_type);
        let mut beginning = (self.header_bytes > 0).then(|| Beginning::new(head.head(), self.header_bytes));
        let Self {
            slicer,
            backoff,
            news,
            waker,
            ..
        } = self;
        pull.read(&mut |piece| {
            let mut heard = true;
            if let Some(header) = beginning.as_mut().and_then(|beginning| beginning.feed(piece)) {
                heard &= tell(news, waker, News::Header(header));
            }
            slicer.feed(piece, &mut |datagram| {
                backoff.reset();
                heard &= tell(news, waker, News::Chunk(datagram));
            });
            heard
        })
    }
}
