//! The log files of a directory, before anything in them is read.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::{
    disk::{Disk, DiskFile},
    error::OpenError,
    log::{FORMAT_VERSION, HeadError, LogFile, LogNumber, RECORDS_START},
    report::Damage,
};

/// The log files of a directory.
pub(super) struct Logs {
    pub(super) store: [u8; 16],
    /// INV: not empty.
    pub(super) files: BTreeMap<LogNumber, Arc<LogFile>>,
    /// Files that cannot be read at all.
    pub(super) damage: Vec<Damage>,
}

impl Logs {
    /// Opens all log files, and sees to it that the newest can be written to.
    pub(super) fn find(disk: &dyn Disk) -> Result<Self, OpenError> {
        let names = disk.list().map_err(OpenError::io("listing the directory"))?;
        let mut numbers: Vec<LogNumber> =
            names.iter().filter_map(|name| LogNumber::of_file_name(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        let (mut files, mut damage, mut unfinished) = (BTreeMap::new(), Vec::new(), None);
        for number in numbers {
            let file = disk.open(&number.file_name()).map_err(OpenError::io("opening a log file"))?;
            let len = file.len().map_err(OpenError::io("reading a log file"))?;
            match LogFile::open(Arc::clone(&file)) {
                Ok(log) if log.number() != number => return Err(OpenError::Foreign { log: number }),
                Err(HeadError::Io(source)) => {
                    return Err(OpenError::Io { doing: "reading a log file", source });
                }
                Err(HeadError::Version(got)) => {
                    return Err(OpenError::UnsupportedVersion {
                        log: number,
                        got,
                        supported: FORMAT_VERSION,
                    });
                }
                // Without records there is nothing to lose, and a crash may have left half a header.
                _ if Some(number) == newest && len <= RECORDS_START => unfinished = Some(file),
                Err(HeadError::Damaged) => damage.push(Damage { log: number, range: 0..len }),
                Ok(log) => {
                    files.insert(number, Arc::new(log));
                }
            }
        }
        let store = match files.values().next() {
            Some(log) => log.head.store,
            None => disk.random().map_err(OpenError::io("drawing random bytes"))?,
        };
        if let Some((&log, _)) = files.iter().find(|(_, log)| log.head.store != store) {
            return Err(OpenError::Foreign { log });
        }
        let mut logs = Self { store, files, damage };
        logs.provide_newest(disk, newest, unfinished).map_err(OpenError::io("starting a log file"))?;
        Ok(logs)
    }

    /// Finishes the newest file if a crash left it without header; starts one if there is none to write to.
    fn provide_newest(
        &mut self,
        disk: &dyn Disk,
        newest: Option<LogNumber>,
        unfinished: Option<Arc<dyn DiskFile>>,
    ) -> io::Result<()> {
        let log = match (newest, unfinished) {
            (Some(number), Some(file)) => {
                let log = LogFile::begin(disk, file, number, self.store)?;
                disk.sync_dir()?;
                log
            }
            (Some(number), None) if self.files.contains_key(&number) => {
                // A crash may have come between the creation of its name and the sync of the directory.
                return disk.sync_dir();
            }
            (newest, _) => LogFile::create(disk, newest.map_or(LogNumber(1), LogNumber::next), self.store)?,
        };
        self.files.insert(log.number(), Arc::new(log));
        Ok(())
    }

    /// The newest file.
    pub(super) fn newest(&self) -> LogNumber {
        self.files.last_key_value().map_or(LogNumber(1), |(number, _)| *number)
    }

    /// Length of a file, if it is there.
    pub(super) fn len(&self, log: LogNumber) -> Option<u64> {
        self.files.get(&log).and_then(|log| log.file.len().ok())
    }
}
