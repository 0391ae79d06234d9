//! The rules, one by one; then whatever comes, in any order.

mod accounts;
mod blobs;
mod epochs;
mod golden;
mod nodes;
mod random;
mod stake;
pub(super) mod world;
