//! Where a blob's bytes come from and go to.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// The bytes of a blob that is to be stored. They are read twice: once to find the blob ID, once to send.
pub trait BlobSource: Send + Sync + 'static {
    /// Bytes of the blob.
    fn len(&self) -> u64;

    /// True if the blob has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be read, or there are fewer than there were.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl BlobSource for Vec<u8> {
    fn len(&self) -> u64 {
        u64::try_from(Self::len(self)).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A file as the source of a blob.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { file, len: metadata.len() })
    }
}

impl BlobSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Takes the bytes of a blob that is read, in order, each checked against the blob ID before it is written.
pub trait BlobSink: Send + 'static {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// If they cannot be written; the read ends.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<W: Write + Send + 'static> BlobSink for W {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
}
