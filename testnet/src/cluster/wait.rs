//! Waiting for a condition, never for a while.

use std::time::Duration;

use node::cli::{Exit, Failure};
use tokio::time::{Instant, sleep, timeout_at};

/// How often a condition is looked at. Short beside everything that is waited for, long beside looking.
const STEP: Duration = Duration::from_millis(50);

/// Looks at a condition until it yields a value, at most for `limit`.
///
/// # Errors
///
/// The condition's own, or that it did not come true in time.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    let come_true = async {
        loop {
            match condition().await {
                Ok(None) => sleep(STEP).await,
                Ok(Some(value)) => break Ok(value),
                Err(failure) => break Err(failure),
            }
        }
    };
    timeout_at(deadline, come_true).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        Err(Failure::new(Exit::Unavailable, format!("{what}: not within {seconds:.0} s")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        let value = until("x", Duration::from_secs(60), async || {
            looks += 1;
            Ok((looks == 3).then_some("held"))
        });
        assert_eq!(value.await.unwrap(), "held");
    }

    #[tokio::test]
    async fn what_never_holds_is_given_up_also_when_looking_takes_forever() {
        let limit = Duration::from_millis(10);
        let never = until::<()>("nodes answer", limit, async || Ok(None)).await.unwrap_err();
        assert!(never.to_string().starts_with("nodes answer: not within"), "{never}");
        until::<()>("x", limit, async || std::future::pending().await).await.unwrap_err();
    }
}
