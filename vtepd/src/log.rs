//! Logs on standard error, written by a thread of their own: a slow terminal or a full pipe never holds the core.

use crate::config::{LogFormat, LogSettings};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Once};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. More are dropped, counted, and the count is logged.
const QUEUE: usize = 8192;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Hands lines to the log thread.
#[derive(Clone, Debug)]
pub struct LogQueue {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl LogQueue {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&lost);
        std::thread::Builder::new().name("log".into()).spawn(move || drain(&waiting, &count, to))?;
        Ok(Self { lines, lost })
    }

    /// Waits until everything so far is written, at most half a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_millis(500));
        }
    }
}

fn drain(waiting: &Receiver<Message>, lost: &AtomicU64, mut to: impl Write) {
    for message in waiting {
        let n = lost.swap(0, Ordering::Relaxed);
        if n > 0 {
            let _ = writeln!(to, "{n} log lines lost");
        }
        match message {
            // Nobody reads the log: the daemon goes on.
            Message::Line(line) => {
                let _ = to.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = to.flush();
                let _ = done.send(());
            }
        }
    }
}

/// Writes one line.
#[derive(Debug)]
pub struct LineWriter<'q>(&'q LogQueue);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.lines.try_send(Message::Line(line.to_vec())) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'q> MakeWriter<'q> for LogQueue {
    type Writer = LineWriter<'q>;
    fn make_writer(&'q self) -> Self::Writer {
        LineWriter(self)
    }
}

/// Sets up logging for this process.
///
/// # Errors
/// No thread to be had.
pub fn init(settings: &LogSettings) -> io::Result<LogQueue> {
    let queue = LogQueue::start(io::stderr())?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(settings.level)
        .with_target(false)
        .with_ansi(crate::cli::out::Look::stderr_color())
        .with_writer(queue.clone());
    // A second set-up in one process (tests) keeps the first.
    let _ = match settings.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(queue)
}

/// A panic ends the process with a message, whichever thread it is in: half a daemon is worse than none, and
/// systemd starts it again.
pub fn abort_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?");
            let trace = std::backtrace::Backtrace::force_capture();
            crate::cli::out::complain(&format!(
                "vtepd: internal error in thread `{name}`: {info}\nThis is a bug; please report it with this text:\n{trace}\n"
            ));
            std::process::abort();
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, b: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(b);
            Ok(b.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_and_flush_waits_for_them() {
        let to = Shared::default();
        let queue = LogQueue::start(to.clone()).expect("thread");
        for n in 0..100 {
            queue.make_writer().write_all(format!("{n}\n").as_bytes()).expect("queued");
        }
        queue.flush();
        let want: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let got = String::from_utf8(to.0.lock().expect("lock").clone()).expect("UTF-8");
        assert_eq!(got.lines().collect::<Vec<_>>(), want);
    }
}
