//! What fuzzing calls that is not public otherwise: how bytes of a stream become frames. Hidden, and no part of the interface.
//!
//! Each decoder returns the form that its value is sent in, which must be how the bytes began.

use futures::io::Cursor;

use crate::{
    address::Address,
    live::{address_of_multiaddr, read_answer, read_request},
};

/// Reads a request from a stream of which `budget` bytes may be held.
#[must_use]
pub fn request_frame(bytes: &[u8], budget: usize) -> Option<Vec<u8>> {
    read_request(&mut Cursor::new(bytes), budget)
}

/// Reads an answer from a stream.
#[must_use]
pub fn answer_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    read_answer(&mut Cursor::new(bytes))
}

/// Reads an address in the form in which peers tell each other where they listen.
#[must_use]
pub fn peer_address(bytes: &[u8]) -> Option<Address> {
    address_of_multiaddr(bytes)
}
