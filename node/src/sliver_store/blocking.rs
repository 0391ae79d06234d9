//! Where blocking calls run.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs blocking calls: on a bounded number of threads, or inline in a simulation.
#[derive(Clone, Debug)]
pub enum Blocking {
    /// On tokio's blocking threads, at most as many at once as the semaphore has permits.
    Threads(Arc<Semaphore>),
    /// On the caller's thread, at once: one thread, one order, one trace.
    Inline,
}

/// The runtime is shutting down, or the call panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub struct Gone;

impl Blocking {
    /// Returns a pool of at most `threads` threads.
    #[must_use]
    pub fn threads(threads: usize) -> Self {
        Self::Threads(Arc::new(Semaphore::new(threads)))
    }

    /// A pool apart from this one, for calls that must not wait behind its; inline if this one is.
    #[must_use]
    pub fn apart(&self, threads: usize) -> Self {
        match self {
            Self::Threads(_) => Self::threads(threads),
            Self::Inline => Self::Inline,
        }
    }

    /// Runs `call`.
    ///
    /// Cancel safe: a call that has begun runs to its end, its result is dropped.
    ///
    /// # Errors
    ///
    /// [`Gone`].
    pub async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Gone> {
        match self {
            Self::Inline => Ok(call()),
            Self::Threads(permits) => {
                let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| Gone)?;
                let call = move || {
                    let _permit = permit;
                    call()
                };
                tokio::task::spawn_blocking(call).await.map_err(|_| Gone)
            }
        }
    }
}
