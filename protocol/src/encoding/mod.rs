//! RedStuff: a blob as grids of symbols, erasure-coded along rows and columns.
//!
//! ```text
//!              s = n-f source columns   f parity columns
//!            +------------------------+----------------+
//!  p = n-2f  |  the segment's bytes,  |  extension of  |   row i    = primary sliver i (stored: s symbols)
//!  rows      |  row-major             |  the rows      |   column j = secondary sliver j (stored: p symbols)
//!            +------------------------+----------------+   pair i   = row i and column n-1-i
//!  2f parity |  extension of          |  both ways,    |
//!  rows      |  the columns           |  hashed only   |
//!            +------------------------+----------------+
//! ```
//!
//! A blob is cut into segments ([`BlobShape`]) that are encoded by themselves, so memory is bounded by a few
//! segments at any blob size. Within a segment ([`SegmentShape`]) every symbol has the same even number of
//! bytes, read as little-endian elements of GF(2^16). The code works element by element: rows and columns are
//! coded in tiles of whatever width is fastest, and a single symbol gives the same bytes as a whole row.
//!
//! - [`code`]: Reed-Solomon over tiles, any `k` of `n`. Read it first.
//! - [`encode`]: a segment to its slivers and their hashes; [`decode`]: primary slivers to the segment.
//! - [`recover`]: a lost sliver from the symbols at which its peers' slivers cross it.
//!
//! Source: RedStuff, Walrus paper (2025), section 3. What differs is in `docs/adr`.

pub mod code;
pub mod decode;
pub mod encode;
mod kernel;
pub(crate) mod leaves;
mod lines;
pub mod recover;
mod shape;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

pub use self::{
    code::Workspace,
    decode::{DecodeError, SegmentDecoder, SliverError, VerifiedSliver, verify_sliver},
    encode::{EncodedSegment, SegmentEncoder, SliverHashes},
    recover::{RecoverError, RecoveryCoefficients, SliverRecovery},
    shape::{BlobShape, Encoding, SegmentShape, ShapeError},
};

use crate::quorum::max_faulty;

/// The two directions of a grid.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Rows: `s` stored symbols, any `p` of them rebuild a segment.
    Primary,
    /// Columns: `p` stored symbols, any `s` of them rebuild a segment.
    Secondary,
}

impl Axis {
    /// The other direction: slivers along it cross the slivers of this one.
    #[must_use]
    pub const fn crossing(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

/// Number of rows of source symbols, `p = n - 2f`: primary slivers that rebuild a segment.
#[must_use]
pub fn n_source_rows(n: u16) -> usize {
    usize::from(n - 2 * max_faulty(n))
}

/// Number of columns of source symbols, `s = n - f`: secondary slivers that rebuild a segment.
#[must_use]
pub fn n_source_columns(n: u16) -> usize {
    usize::from(n - max_faulty(n))
}
