//! One suite for both implementations. (in the making)
