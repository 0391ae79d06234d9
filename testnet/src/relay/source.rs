//! Which node a connection comes from.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What tells nodes apart.
#[derive(Clone, Debug)]
pub enum Sources {
    /// Nodes share the address 127.0.0.1: the process that has the socket at the other end.
    Processes(Arc<Processes>),
    /// Each node has an address of its own.
    Addresses(BTreeMap<IpAddr, usize>),
}

impl Sources {
    /// The node that connected from this address to the other; none if it was no node, or is gone.
    pub(super) fn of(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        match self {
            Self::Processes(processes) => processes.of(from.port(), to.port()),
            Self::Addresses(nodes) => nodes.get(&from.ip()).copied(),
        }
    }
}

/// The processes of nodes.
#[derive(Debug, Default)]
pub struct Processes(Mutex<BTreeMap<usize, i32>>);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, i32>> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has another process, or none.
    pub fn set(&self, node: usize, pid: Option<i32>) {
        match pid {
            Some(pid) => self.lock().insert(node, pid),
            None => self.lock().remove(&node),
        };
    }

    /// The node that connected from a port of 127.0.0.1 to another; none if it was no node, or is gone.
    fn of(&self, from: u16, to: u16) -> Option<usize> {
        let inode = inode_of(&fs::read_to_string("/proc/net/tcp").ok()?, from, to)?;
        let socket = format!("socket:[{inode}]");
        let nodes = self.lock().clone();
        nodes.into_iter().find(|(_, pid)| has_open(*pid, &socket).unwrap_or(false)).map(|(node, _)| node)
    }
}

/// The inode of the socket that is connected from one local port to another. Source: `proc_pid_net(5)`, `tcp`.
///
/// Nodes dial from the port on which they listen, so the first port alone is that of many sockets, also of some that nobody has
/// any more: those of a process that was killed stay in the table for a while.
fn inode_of(table: &str, from: u16, to: u16) -> Option<u64> {
    let wanted = [from, to].map(|port| format!("0100007F:{port:04X}"));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ends = [fields.next()?, fields.next()?];
        let inode = fields.nth(6)?.parse().ok()?;
        (ends == wanted).then_some(inode)
    })
}

/// True if a process has a socket open.
fn has_open(pid: i32, socket: &str) -> io::Result<bool> {
    for file in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // What was closed since is no error.
        if fs::read_link(file?.path()).is_ok_and(|link| link.as_os_str() == socket) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_table_of_sockets_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100\n\
             1: 0100007F:2711 0100007F:2712 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20\n\
             2: 0100007F:2711 0100007F:2710 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20\n\
             3: 0100007F:2710 0100007F:2711 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 20\n\
             4: broken\n";
        assert_eq!(inode_of(table, 0x2711, 0x2710), Some(222));
        assert_eq!(inode_of(table, 0x2710, 0x2711), Some(333), "the other end");
        assert_eq!(inode_of(table, 0x2711, 0x2712), Some(0), "nobody's any more");
        assert_eq!(inode_of(table, 0x2710, 0), None, "it listens");
        assert_eq!(inode_of(table, 1, 0x2710), None);
    }

    #[test]
    fn a_connection_is_that_of_the_process_that_made_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (from, to) = (stream.local_addr().unwrap().port(), stream.peer_addr().unwrap().port());
        let processes = Processes::default();
        assert_eq!(processes.of(from, to), None);
        // A process that is not there, and this one.
        processes.set(3, Some(i32::MAX));
        processes.set(4, Some(rustix::process::getpid().as_raw_nonzero().get()));
        assert_eq!(processes.of(from, to), Some(4));
        processes.set(4, None);
        assert_eq!(processes.of(from, to), None);
    }

    #[test]
    fn an_address_of_its_own_is_enough() {
        let address = |last| SocketAddr::from((Ipv4Addr::new(10, 1, 2, last), 4100));
        let sources =
            Sources::Addresses((0..3u8).map(|node| (address(16 + node).ip(), node.into())).collect());
        assert_eq!(
            [16, 18, 1, 19].map(|last| sources.of(address(last), address(1))),
            [Some(0), Some(2), None, None]
        );
    }
}
