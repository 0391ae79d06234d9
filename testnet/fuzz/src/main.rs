//! Runs one target of `testnet::fuzz`, named by `FUZZ_TARGET`; without a name, lists all with their longest inputs.
//!
//! libFuzzer calls; what is counted here is memory: a decoder that holds more than it promises is a crash like any other.
#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    process::exit,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use libfuzzer_sys::fuzz_target;
use testnet::fuzz::{Target, target, targets};

/// The system's allocator, and how many bytes it has given out.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is; numbers are all that is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Relaxed);
        count(size);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(bytes: usize) {
    PEAK.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TARGET: OnceLock<&Target> = OnceLock::new();

/// Finds the target, and runs its seeds: what is made once and kept is not counted afterwards.
fn start() {
    let Ok(name) = std::env::var("FUZZ_TARGET") else {
        for target in targets() {
            println!("{} {}", target.name, target.bytes_max);
        }
        exit(0);
    };
    let Some(found) = target(&name) else {
        eprintln!("there is no target {name}; without FUZZ_TARGET, this lists them");
        exit(2);
    };
    for (_, bytes) in (found.seeds)() {
        (found.run)(&bytes);
    }
    TARGET.get_or_init(|| found);
}

fuzz_target!(init: start(), |bytes: &[u8]| {
    let target = TARGET.get().expect("found at the start");
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    (target.run)(bytes);
    let held = PEAK.load(Relaxed) - before;
    assert!(held <= target.memory_max, "{held} bytes were held, at most {} are promised", target.memory_max);
});
