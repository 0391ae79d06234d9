//! Progress bars on standard error, if that is a terminal.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{OnProgress, Progress};

/// A bar that follows one operation, and is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for an operation on `subject`. It stays invisible unless standard error is a terminal.
    pub(super) fn new(subject: &str) -> Self {
        let template = "{prefix} {msg:10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
        bar.set_prefix(subject.to_owned());
        Self(bar)
    }

    /// Where the operation reports to.
    pub(super) fn reports(&self) -> OnProgress {
        let bar = self.0.clone();
        Arc::new(move |progress| match progress {
            Progress::Encoding { done, total } => show(&bar, "encoding", done, total),
            Progress::Uploading { done, total } => show(&bar, "uploading", done, total),
            Progress::Reading { done, total } => show(&bar, "reading", done, total),
            Progress::Identified(_) => bar.reset(),
            Progress::Certified => bar.set_message("certified"),
        })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn show(bar: &ProgressBar, phase: &'static str, done: u64, total: u64) {
    if bar.message() != phase {
        bar.set_message(phase);
    }
    bar.set_length(total);
    bar.set_position(done);
}
