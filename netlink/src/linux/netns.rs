//! Network namespaces of threads.

use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::io;
use std::thread::JoinHandle;

/// Runs `f` on a new thread in a new, empty network namespace, which is gone when the thread and the sockets
/// it opened are. Needs `CAP_SYS_ADMIN`.
pub fn in_new<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        unshare()?;
        Ok(f())
    })
}

/// Runs `f` on a new thread in the named namespace (`/run/netns/NAME`) and waits for it.
pub fn in_named<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let file = File::open(format!("/run/netns/{name}"))?;
    let thread = std::thread::Builder::new().name(format!("netns {name}")).spawn(move || {
        enter(&file)?;
        Ok(f())
    })?;
    thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))
}

/// Moves the calling thread into the namespace behind this file. Threads that it starts later follow.
pub fn enter(file: &File) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(file),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Moves the calling thread into a new, empty network namespace.
pub fn unshare() -> io::Result<()> {
    // SAFETY: only the network namespace changes; it affects no memory and no descriptor of other threads.
    #[allow(unsafe_code)]
    let done = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
    Ok(done?)
}
