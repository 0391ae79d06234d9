//! The sliver store of a Floe node: append-only log files hold the truth, an index finds it.
