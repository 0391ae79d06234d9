//! The encoder: a bounded pool of threads for everything that costs CPU by the megabyte.
//!
//! Encoding, decoding, extending and hashing run here and nowhere else, so that they never hold up a task that
//! answers peers. Jobs wait in one bounded queue; a full queue makes callers wait, which slows them down instead of
//! growing memory. In a simulation, jobs run inline: one thread, one order, one trace.

use std::{
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use protocol::encoding::SegmentEncoder;
use swarm::QueueLoad;
use tokio::sync::{mpsc, oneshot};

use crate::load::Work;

/// Jobs that may wait for each thread. Each may hold a segment's buffers, so few.
const QUEUE_PER_THREAD: usize = 4;

type Job = Box<dyn FnOnce(&mut SegmentEncoder) + Send>;

/// The encoder has stopped, or a job panicked in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the encoder has stopped")]
pub struct Stopped;

/// Handle to the encoder pool; cheap to clone. The threads end when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Encoder {
    mode: Arc<Mode>,
    work: Work,
}

#[derive(Debug)]
enum Mode {
    Pool { jobs: mpsc::Sender<Job> },
    Inline(Box<Mutex<SegmentEncoder>>),
}

impl Encoder {
    /// Starts `threads` threads that encode for `n_shards` shards.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread.
    ///
    /// # Panics
    ///
    /// Unless `4 <= n_shards <= 1000`.
    pub fn start(n_shards: u16, threads: NonZeroUsize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(threads.get() * QUEUE_PER_THREAD);
        let queue = Arc::new(Mutex::new(queue));
        let work = Work::default();
        for index in 0..threads.get() {
            let (queue, work) = (Arc::clone(&queue), work.clone());
            let mut encoder = SegmentEncoder::new(n_shards);
            thread::Builder::new().name(format!("encoder-{index}")).spawn(move || {
                loop {
                    // Nothing that can panic runs under this lock.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(job) = job else { break };
                    work.took(1);
                    // A job that panics drops its answer, which tells its caller. The thread must outlive it, or the
                    // pool shrinks bug by bug until nothing is encoded; what the job left behind is thrown away.
                    if panic::catch_unwind(AssertUnwindSafe(|| job(&mut encoder))).is_err() {
                        encoder = SegmentEncoder::new(n_shards);
                    }
                }
            })?;
        }
        Ok(Self { mode: Arc::new(Mode::Pool { jobs }), work })
    }

    /// Returns an encoder that runs each job at once, on the caller's thread: for simulations.
    ///
    /// # Panics
    ///
    /// Unless `4 <= n_shards <= 1000`.
    #[must_use]
    pub fn inline(n_shards: u16) -> Self {
        let mode = Mode::Inline(Box::new(Mutex::new(SegmentEncoder::new(n_shards))));
        Self { mode: Arc::new(mode), work: Work::default() }
    }

    /// How full the queue of jobs is; a full one makes callers wait.
    #[must_use]
    pub fn load(&self) -> QueueLoad {
        match &*self.mode {
            Mode::Pool { jobs } => self.work.load(jobs),
            Mode::Inline(_) => QueueLoad { taken: self.work.taken(), ..QueueLoad::default() },
        }
    }

    /// Runs a job on the pool and returns its result.
    ///
    /// Cancel safe: a job that was queued runs to its end, its result is dropped.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the pool is gone or the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SegmentEncoder) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        match &*self.mode {
            Mode::Inline(encoder) => {
                self.work.took(1);
                Ok(job(&mut *encoder.lock().map_err(|_| Stopped)?))
            }
            Mode::Pool { jobs } => {
                let (reply, answer) = oneshot::channel();
                let job: Job = Box::new(move |encoder| {
                    // A caller that went away is not an error.
                    let _ = reply.send(job(encoder));
                });
                jobs.send(job).await.map_err(|_| Stopped)?;
                answer.await.map_err(|_| Stopped)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_and_answer() {
        for encoder in [Encoder::inline(7), Encoder::start(7, NonZeroUsize::new(2).unwrap()).unwrap()] {
            let jobs = (0..50).map(|i| {
                let encoder = encoder.clone();
                async move { encoder.run(move |e| e.n() + i).await }
            });
            let answers = futures::future::join_all(jobs).await;
            assert_eq!(answers, (0..50).map(|i| Ok(7 + i)).collect::<Vec<_>>());
            assert_eq!((encoder.load().taken, encoder.load().waiting), (50, 0));
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_is_reported_and_the_pool_lives_on() {
        let encoder = Encoder::start(7, NonZeroUsize::MIN).unwrap();
        for _ in 0..3 {
            assert_eq!(encoder.run(|_| panic!("a bug")).await, Err::<(), _>(Stopped));
        }
        assert_eq!(encoder.run(|e| e.n()).await, Ok(7));
    }
}
