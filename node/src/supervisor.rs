//! Starts a node's actors bottom up, notices when one ends, and stops them top down.
//!
//! A node is crash-only: its actors hold mailboxes to each other, so one that ends before the node was told to stop
//! takes the node down with it, and the process manager starts it again from durable state. Workers that live for one
//! blob or one peer are supervised by the actor that owns them, not here.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a node stopped.
#[derive(Debug, thiserror::Error)]
pub enum ActorFailure {
    /// An actor returned although nobody told it to stop.
    #[error("the {0} actor ended although nobody stopped it")]
    EndedEarly(&'static str),
    /// An actor panicked: a bug.
    #[error("the {name} actor panicked")]
    Panicked {
        /// The actor.
        name: &'static str,
        /// The panic.
        #[source]
        source: JoinError,
    },
    /// An actor was still busy when its time to stop was over, and was aborted.
    #[error("the {0} actor did not stop in time")]
    Stuck(&'static str),
}

struct Running {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// That an actor has ended, and which was the first.
#[derive(Debug, Default)]
struct Ended {
    first: OnceLock<&'static str>,
    token: CancellationToken,
}

/// Says that an actor has ended, however it did.
struct Guard(&'static str, Arc<Ended>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Self(name, ended) = self;
        // Only the first counts: others may end because it is gone.
        let _ = ended.first.set(name);
        ended.token.cancel();
    }
}

/// The running actors of one node, in the order in which they were started.
pub struct Supervisor {
    grace: Duration,
    tracker: TaskTracker,
    ended: Arc<Ended>,
    actors: Vec<Running>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.actors.iter().map(|actor| actor.name)).finish()
    }
}

/// A supervisor that is dropped takes its actors with it, as the end of a process would.
impl Drop for Supervisor {
    fn drop(&mut self) {
        for actor in &self.actors {
            actor.task.abort();
        }
    }
}

impl Supervisor {
    /// Returns a supervisor that gives each actor `grace` to stop.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, tracker: TaskTracker::new(), ended: Arc::default(), actors: Vec::new() }
    }

    /// Starts an actor; those that it calls must have been started before it.
    pub fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Tokens of their own, not children of one: actors stop one after the other, callers before callees.
        let stop = CancellationToken::new();
        let actor = run(stop.clone());
        let guard = Guard(name, Arc::clone(&self.ended));
        let task = self.tracker.spawn(async move {
            let _guard = guard;
            actor.await;
        });
        self.actors.push(Running { name, stop, task });
    }

    /// Waits until `stop` is cancelled or an actor ends, then stops all actors.
    ///
    /// # Errors
    ///
    /// The first [`ActorFailure`]; later ones are logged.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ActorFailure> {
        let told_to_stop = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = self.ended.token.cancelled() => false,
        };
        // Not whether a task is finished: the one that woke us may be just about to be.
        let ended_early = if told_to_stop { None } else { self.ended.first.get().copied() };
        let mut failure = None;
        while let Some(Running { name, stop, mut task }) = self.actors.pop() {
            stop.cancel();
            let result = match tokio::time::timeout(self.grace, &mut task).await {
                Ok(Err(source)) => Err(ActorFailure::Panicked { name, source }),
                Ok(Ok(())) if ended_early == Some(name) => Err(ActorFailure::EndedEarly(name)),
                Ok(Ok(())) => Ok(()),
                Err(_) => {
                    task.abort();
                    Err(ActorFailure::Stuck(name))
                }
            };
            if let Err(error) = result {
                tracing::error!(%error, "an actor failed");
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    async fn polite(stop: CancellationToken) {
        stop.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn actors_stop_in_the_reverse_of_their_start_order() {
        let (mut node, stop) = (Supervisor::new(GRACE), CancellationToken::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        for name in ["store", "swarm", "server"] {
            let order = Arc::clone(&order);
            node.start(name, |token| async move {
                token.cancelled().await;
                order.lock().unwrap().push(name);
            });
        }
        stop.cancel();
        node.run(stop).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["server", "swarm", "store"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_that_ends_or_panics_takes_the_node_down() {
        let mut node = Supervisor::new(GRACE);
        node.start("polite", polite);
        node.start("short", |_| async {});
        let failure = node.run(CancellationToken::new()).await.unwrap_err();
        assert!(matches!(failure, ActorFailure::EndedEarly("short")), "{failure}");

        let mut node = Supervisor::new(GRACE);
        node.start("polite", polite);
        node.start("buggy", |_| async { panic!("a bug") });
        let failure = node.run(CancellationToken::new()).await.unwrap_err();
        assert!(matches!(failure, ActorFailure::Panicked { name: "buggy", .. }), "{failure}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_early_end_is_noticed_on_several_threads_too() {
        for _ in 0..1_000 {
            let mut node = Supervisor::new(GRACE);
            node.start("short", |_| tokio::task::yield_now());
            let failure = node.run(CancellationToken::new()).await.unwrap_err();
            assert!(matches!(failure, ActorFailure::EndedEarly("short")), "{failure}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_actor_that_ended_first_is_named() {
        let mut node = Supervisor::new(GRACE);
        let (gone, noticed) = tokio::sync::oneshot::channel::<()>();
        node.start("network", |_| async move { drop(gone) });
        node.start("server", |_| async move { drop(noticed.await) });
        let failure = node.run(CancellationToken::new()).await.unwrap_err();
        assert!(matches!(failure, ActorFailure::EndedEarly("network")), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_that_does_not_stop_is_named() {
        let (mut node, stop) = (Supervisor::new(GRACE), CancellationToken::new());
        node.start("deaf", |_| std::future::pending());
        node.start("polite", polite);
        stop.cancel();
        let begin = tokio::time::Instant::now();
        let failure = node.run(stop).await.unwrap_err();
        assert!(matches!(failure, ActorFailure::Stuck("deaf")), "{failure}");
        assert_eq!(begin.elapsed(), GRACE);
    }
}
