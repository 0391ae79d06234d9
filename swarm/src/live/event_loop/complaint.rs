//! What strangers can bring about as often as they like is logged now and then: pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of the log. A day of them is a hundred kilobytes.
const PAUSE: Duration = Duration::from_secs(60);

/// Something to complain of, over and over.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    made: Option<Instant>,
    occasions: u64,
}

impl Complaint {
    /// One more occasion. If the last complaint is long enough ago: how many occasions there were since, this one included.
    pub(super) fn occasion(&mut self, now: Instant) -> Option<u64> {
        self.occasions = self.occasions.saturating_add(1);
        if self.made.is_some_and(|made| now.duration_since(made) < PAUSE) {
            return None;
        }
        self.made = Some(now);
        Some(std::mem::take(&mut self.occasions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_occasions_a_few_are_told_and_all_are_counted() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let told: Vec<_> = (0..150)
            .filter_map(|second| complaint.occasion(start + Duration::from_secs(second)).map(|n| (second, n)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60)]);
    }
}
