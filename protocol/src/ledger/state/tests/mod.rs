pub(super) mod world {}
