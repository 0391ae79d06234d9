//! A Floe storage node, its client library and the floe command line.
