//! How fast blobs become slivers and slivers blobs: `cargo bench -p protocol --bench encoding -- [--json] [--quick] [--n N]
//! [--size BYTES] [--op NAME]`.
//!
//! Every rate is MiB of blob per CPU-second of the one thread that did the work, the best of several rounds, beside
//! the rate of BLAKE3 and of memcpy over the same number of bytes in the same round: only the ratio between two rates
//! of one round survives a noisy machine.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and panics where a program would report"
)]

use std::{hint::black_box, time::Duration};

use protocol::{
    SegmentIndex, SliverPairIndex,
    commitment::SegmentCommitment,
    encoding::{
        Axis, BlobShape, EncodedSegment, RecoveryCoefficients, SegmentDecoder, SegmentEncoder, SegmentShape,
        SliverRecovery, encode::sliver_index, recover::recovery_symbol,
    },
};
use rand::{RngCore as _, SeedableRng as _, seq::SliceRandom as _};
use rustix::time::{ClockId, clock_gettime};

const AXES: [Axis; 2] = [Axis::Primary, Axis::Secondary];
const MIB: f64 = 1024.0 * 1024.0;

/// CPU time of this thread.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Time by the clock, since some start.
fn clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap()
}

/// The best of several rounds of `work`, each at least a few milliseconds long, in seconds a call.
fn best(quick: bool, mut work: impl FnMut()) -> f64 {
    let start = cpu();
    work();
    let once = (cpu() - start).as_secs_f64().max(1e-9);
    let (round, rounds) = if quick { (0.005, 2) } else { (0.05, 5) };
    let calls = (round / once).ceil().clamp(1.0, 100_000.0);
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = cpu();
        let mut done = 0.0;
        while done < calls {
            work();
            done += 1.0;
        }
        best = best.min((cpu() - start).as_secs_f64() / calls);
    }
    best
}

/// A blob of `size` bytes for `n` shards: its segments are alike but for the last, so one of each is encoded.
struct Blob {
    shape: BlobShape,
    data: Vec<u8>,
}

impl Blob {
    fn new(n: u16, size: u64) -> Self {
        let shape = BlobShape::new(n, size).unwrap();
        let range = shape.range(SegmentIndex(0)).unwrap();
        let mut data = vec![0; usize::try_from(range.end).unwrap()];
        rand_chacha::ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut data);
        Self { shape, data }
    }

    /// The shapes of the first and the last segment, with how many segments they stand for and the bytes of one.
    fn kinds(&self) -> Vec<(SegmentShape, f64, usize)> {
        let bytes = |index: u32| {
            let range = self.shape.range(SegmentIndex(index)).unwrap();
            usize::try_from(range.end - range.start).unwrap()
        };
        let shape = |index: u32| self.shape.segment(SegmentIndex(index)).unwrap();
        let last = self.shape.n_segments() - 1;
        let mut kinds = vec![(shape(last), 1.0, bytes(last))];
        if last > 0 {
            kinds.push((shape(0), f64::from(last), bytes(0)));
        }
        kinds
    }
}

/// What is timed. Decoding includes checking every sliver but for the concatenation of slivers that were checked
/// before.
const OPS: [&str; 7] = [
    "encode+commit",
    "verify one pair",
    "repair one pair",
    "decode systematic",
    "decode random",
    "decode parity",
    "concatenate",
];
/// Those that are about one sliver pair: their cost is told as a multiple of hashing the pair.
const OF_PAIR: [&str; 2] = ["verify one pair", "repair one pair"];

struct Bench {
    json: bool,
    /// Only operations that begin like this.
    op: Option<String>,
    quick: bool,
    blake3: f64,
    memcpy: f64,
}

impl Bench {
    fn print(&self, op: &str, (n, size, threads): (u16, u64, u32), engine: &str, seconds: f64) {
        let rate = size as f64 / MIB / seconds;
        let shape = BlobShape::new(n, size).unwrap();
        let pair_bytes = shape.encoded_bytes() as f64 / f64::from(n);
        let of_hashing = seconds / (pair_bytes / MIB / self.blake3);
        let of_hashing = OF_PAIR.contains(&op).then_some(of_hashing);
        if self.json {
            let of_hashing =
                of_hashing.map_or(String::new(), |times| format!("\"times_hashing_pair\":{times:.2},"));
            println!(
                "{{\"op\":\"{op}\",\"n\":{n},\"size\":{size},\"threads\":{threads},\"mib_per_cpu_s\":{rate:.1},\"microseconds\":{:.2},{of_hashing}\"engine\":\"{engine}\",\"blake3_mib_per_cpu_s\":{:.0},\"memcpy_mib_per_cpu_s\":{:.0}}}",
                seconds * 1e6,
                self.blake3,
                self.memcpy
            );
        } else {
            let of_hashing =
                of_hashing.map_or(String::new(), |times| format!("  {times:.2} x hashing the pair"));
            let label = if threads == 1 { op.to_owned() } else { format!("{op}, {threads} threads") };
            println!(
                "{label:<28} {n:>5} {:>9} {rate:>12.1} {:>12.1} {:>9.3} {:>9.4}  {engine}{of_hashing}",
                human(size),
                seconds * 1e6,
                rate / self.blake3,
                rate / self.memcpy
            );
        }
    }

    /// Rates of BLAKE3 and memcpy over `size` bytes, to compare with.
    fn baseline(&mut self, size: u64) {
        let data = vec![7; usize::try_from(size).unwrap()];
        let mut copy = data.clone();
        let rate = |seconds: f64| size as f64 / MIB / seconds;
        self.blake3 = rate(best(self.quick, || {
            black_box(blake3::hash(black_box(&data)));
        }));
        self.memcpy = rate(best(self.quick, || black_box(&mut copy).copy_from_slice(black_box(&data))));
        if !self.json {
            println!(
                "{:<28} {:>5} {:>9} {:>12.1}\n{:<28} {:>5} {:>9} {:>12.1}",
                "blake3",
                "",
                human(size),
                self.blake3,
                "memcpy",
                "",
                human(size),
                self.memcpy
            );
        }
    }

    fn is_asked(&self, op: &str) -> bool {
        self.op.as_ref().is_none_or(|asked| op.starts_with(asked))
    }

    /// Times all operations of one engine on a blob.
    fn run(&self, n: u16, size: u64, mut encoder: SegmentEncoder) {
        let blob = Blob::new(n, size);
        let coefficients = RecoveryCoefficients::new(n);
        let mut total = [0.0; OPS.len()];
        let mut grid = Vec::new();
        for (shape, count, len) in blob.kinds() {
            let data = &blob.data[..len];
            let mut segment = encoder.encode(shape, data);
            let mut time = |op: usize, work: &mut dyn FnMut()| {
                if self.is_asked(OPS[op]) {
                    total[op] += count * best(self.quick, work);
                }
            };
            time(0, &mut || {
                encoder.encode_into(shape, black_box(data), &mut segment);
                black_box(segment.commitment());
            });
            let pair = SliverPairIndex(n - 1);
            time(1, &mut || {
                for axis in AXES {
                    black_box(encoder.hash_sliver(shape, axis, segment.sliver_of_pair(axis, pair)));
                }
            });
            time(2, &mut || repair(&mut encoder, &coefficients, &segment, pair));
            let commitment = segment.commitment();
            let p = shape.n_source(Axis::Secondary);
            let mut random: Vec<u16> = (0..n).collect();
            random.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(2));
            let last = n - u16::try_from(p).unwrap();
            for (op, indices) in [(3, (0..n).collect()), (4, random), (5, (last..n).collect::<Vec<_>>())] {
                time(op, &mut || {
                    let decoder = decoder((&segment, &commitment), &indices[..p]);
                    decoder.decode_into(&mut encoder, black_box(&mut grid)).unwrap();
                });
            }
            let systematic: Vec<_> = (0..n).take(p).collect();
            let decoder = decoder((&segment, &commitment), &systematic);
            time(6, &mut || decoder.decode_into(&mut encoder, black_box(&mut grid)).unwrap());
        }
        for (op, seconds) in OPS.iter().zip(total).filter(|(_, seconds)| *seconds > 0.0) {
            self.print(op, (n, size, 1), encoder.kernel_name(), seconds);
        }
    }

    /// Encodes on two threads, a segment each, and says how much sooner they are done than one thread with both.
    fn run_two(&self, n: u16, size: u64) {
        let blob = Blob::new(n, size);
        let (shape, _, len) = *blob.kinds().last().unwrap();
        let data = &blob.data[..len];
        let mut workers = [(); 2].map(|()| {
            let mut encoder = SegmentEncoder::new(n);
            let segment = encoder.encode(shape, data);
            (encoder, segment)
        });
        let (mut one, mut two, mut cpu_of_two) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        let work = |(encoder, segment): &mut (SegmentEncoder, EncodedSegment)| {
            let start = cpu();
            for _ in 0..if self.quick { 1 } else { 4 } {
                encoder.encode_into(shape, black_box(data), segment);
                black_box(segment.commitment());
            }
            (cpu() - start).as_secs_f64()
        };
        for _ in 0..if self.quick { 2 } else { 12 } {
            let start = clock();
            black_box(workers.each_mut().map(work));
            one = one.min((clock() - start).as_secs_f64());
            let start = clock();
            let cpu: f64 = std::thread::scope(|scope| {
                let threads = workers.each_mut().map(|worker| scope.spawn(|| work(worker)));
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            two = two.min((clock() - start).as_secs_f64());
            cpu_of_two = cpu_of_two.min(cpu);
        }
        let segments = 2.0 * if self.quick { 1.0 } else { 4.0 };
        let seconds = cpu_of_two / segments * (size as f64 / len as f64);
        let engine = workers[0].0.kernel_name();
        self.print(OPS[0], (n, size, 2), engine, seconds);
        if self.json {
            println!(
                "{{\"op\":\"speedup of two threads\",\"n\":{n},\"size\":{size},\"threads\":2,\"mib_per_cpu_s\":{:.1},\"times\":{:.2},\"engine\":\"{engine}\"}}",
                size as f64 / MIB / seconds,
                one / two
            );
        } else {
            println!(
                "{:<28} {n:>5} {:>9} {:>12.2} times the rate of one, by the clock",
                "two threads",
                human(size),
                one / two
            );
        }
    }
}

/// Rebuilds one sliver pair, all helpers' work counted.
fn repair(
    encoder: &mut SegmentEncoder,
    coefficients: &RecoveryCoefficients,
    segment: &EncodedSegment,
    pair: SliverPairIndex,
) {
    let shape = segment.shape();
    for axis in AXES {
        let index = sliver_index(axis, pair, shape.n());
        let mut recovery = SliverRecovery::new(shape, axis);
        for crossing in (0..shape.n()).take(recovery.required()) {
            let sliver = (axis.crossing(), segment.sliver(axis.crossing(), crossing));
            let symbol = recovery_symbol(coefficients, shape, sliver, index, 0..shape.symbol_bytes());
            recovery.add(crossing, symbol);
        }
        let root = segment.hashes(axis, index).root();
        black_box(recovery.recover(encoder, &root).unwrap());
    }
}

/// A decoder that has checked these primary slivers.
fn decoder<'a>(
    (segment, commitment): (&'a EncodedSegment, &'a SegmentCommitment),
    indices: &[u16],
) -> SegmentDecoder<'a, &'a [u8]> {
    let mut decoder = SegmentDecoder::new(segment.shape(), commitment);
    for index in indices {
        let parity = segment.hashes(Axis::Primary, *index).parity;
        decoder.add(Axis::Primary, *index, segment.sliver(Axis::Primary, *index), &parity).unwrap();
    }
    decoder
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// Most memory this process has had resident, in MiB. Source: proc(5), `VmHWM`.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib >> 10
}

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let value = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
    let number = |flag: &str| value(flag).map(|value| value.parse::<u64>().unwrap());
    let (only_size, only_n) = (number("--size"), number("--n"));
    let mut bench =
        Bench { json: has("--json"), op: value("--op"), quick: has("--quick"), blake3: 1.0, memcpy: 1.0 };
    if !bench.json {
        println!("MiB of blob per CPU-second of the threads at work");
        println!(
            "{:<28} {:>5} {:>9} {:>12} {:>12} {:>9} {:>9}  engine",
            "op", "n", "size", "MiB/cpu-s", "µs", "/blake3", "/memcpy"
        );
    }
    for size in [1 << 10, 64 << 10, 1 << 20, 32 << 20, 256 << 20] {
        if only_size.is_some_and(|only| only != size) {
            continue;
        }
        bench.baseline(size);
        for n in [10, 100, 1000] {
            if only_n.is_some_and(|only| only != u64::from(n)) {
                continue;
            }
            bench.run(n, size, SegmentEncoder::new(n));
            if size >= 1 << 20 {
                bench.run(n, size, SegmentEncoder::portable(n));
            }
            if size >= 32 << 20 && bench.is_asked(OPS[0]) {
                bench.run_two(n, size);
            }
        }
    }
    if !bench.json {
        println!(
            "peak resident memory: {} MiB, of which the data to encode and compare with is 512",
            peak_mib()
        );
    }
}
