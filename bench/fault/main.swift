import Foundation
import Glibc
import LinuxSystem
import Memtap

// bench/fault: what paging costs, as the one who touches memory feels it. JSON lines on stdout.
//
//   bench-fault      a real sf-memtap and stand-ins for QEMU; no VM. Takes 20 s and 9 GiB.
//
// Every figure is taken over all touches of a run, in nanoseconds as clock_gettime sees them around one access.

let pages = 65536  // 256 MiB

func emit(_ name: String, _ fields: [(String, Any)]) {
  let body = ([("bench", "fault"), ("name", name)] + fields).map { key, value in
    value is String ? "\"\(key)\":\"\(value)\"" : "\"\(key)\":\(value)"
  }
  print("{\(body.joined(separator: ","))}")
  fflush(nil)
}

func percentile(_ values: [UInt32], _ percent: Int) -> Double {
  let sorted = values.sorted()
  return Double(sorted[min(sorted.count - 1, sorted.count * percent / 100)]) / 1000
}

func summary(_ values: [UInt32]) -> [(String, Any)] {
  let mean = Double(values.reduce(0) { $0 + UInt64($1) }) / Double(values.count) / 1000
  return [
    ("touches", values.count), ("us_p50", percentile(values, 50)), ("us_p99", percentile(values, 99)),
    ("us_mean", (mean * 100).rounded() / 100),
  ]
}

/// A clone reads one page of each window of 64 KiB: each touch is a fault that the pager serves.
func missingFaults(window: Int) throws {
  let bench = try Bench(tuning: "fetch=\(window)")
  defer { bench.close() }
  let parent = try bench.guest("dev", pages: pages)
  try parent.write(0..<pages, tag: 1)
  try bench.freeze("dev", as: "s1")
  let first = try bench.clone("a", of: "s1", pages: pages)
  emit(
    "fetch_from_origin",
    [("window_pages", window)] + summary(try first.time(.read, from: 0, count: 4096, stride: 16)))
  // The pages beside them were prefetched: the pager has the page in the cache, or the kernel finds it there itself.
  emit(
    "prefetched_neighbour",
    [("window_pages", window)] + summary(try first.time(.read, from: 1, count: 4096, stride: 16)))
  let second = try bench.clone("b", of: "s1", pages: pages)
  emit("host_cache_read", summary(try second.time(.read, from: 0, count: 4096, stride: 16)))
  let third = try bench.clone("c", of: "s1", pages: pages)
  emit("host_cache_write", summary(try third.time(.write, from: 0, count: 4096, stride: 16)))
  let fourth = try bench.guest("dev2", pages: pages)
  try fourth.write(0..<pages, tag: 1)
  try bench.freeze("dev2", as: "s2")
  let reader = try bench.clone("d", of: "s2", pages: pages)
  emit("read_all_pages", [("window_pages", window)] + summary(try reader.time(.read, from: 0, count: pages)))
  let statistics = try bench.client.statistics()
  for vm in statistics.vms where vm.snapshot != nil {
    emit(
      "pager_side",
      [
        ("vm", vm.vm), ("faults", vm.faults), ("fetched", vm.pagesFetched),
        ("prefetched", vm.pagesPrefetched),
        ("us_p50", vm.faultMicroseconds.p50), ("us_p99", vm.faultMicroseconds.p99),
      ])
  }
}

/// Zero pages: one touch in each window of 256 KiB.
func zeroFaults() throws {
  let bench = try Bench()
  defer { bench.close() }
  _ = try bench.guest("dev", pages: pages)
  try bench.freeze("dev", as: "s1")
  let clone = try bench.clone("a", of: "s1", pages: pages)
  emit("zero", summary(try clone.time(.read, from: 0, count: 1024, stride: 64)))
}

/// A parent writes every page once after a fork, in order and scattered.
func preimages(window: Int) throws {
  let bench = try Bench(tuning: "preimage=\(window)")
  defer { bench.close() }
  let parent = try bench.guest("dev", pages: pages)
  try parent.write(0..<pages, tag: 1)
  let plain = try parent.time(.write, from: 0, count: pages)
  try bench.freeze("dev", as: "s1")
  let saved = try parent.time(.write, from: 0, count: pages)
  let mean =
    (saved.map(Double.init).reduce(0, +) - plain.map(Double.init).reduce(0, +)) / Double(pages) / 1000
  let faults = saved.filter { $0 > 5000 }
  emit(
    "preimage_sequential",
    [
      ("window_pages", window), ("us_per_page", (mean * 100).rounded() / 100), ("faults", faults.count),
      ("us_fault_p50", percentile(faults.isEmpty ? [0] : faults, 50)),
      ("us_fault_p99", percentile(faults.isEmpty ? [0] : faults, 99)),
    ])
  try bench.client.drop(snapshot: "s1")
  usleep(200_000)
  try bench.freeze("dev", as: "s2")
  emit(
    "preimage_scattered",
    [("window_pages", window)] + summary(try parent.time(.write, from: 0, count: pages / 128, stride: 128)))
}

/// Arming and committing, with all RAM in use and with a tenth of it.
func freezing(mebibytes: Int, used: Double) throws {
  let bench = try Bench()
  defer { bench.close() }
  let pages = mebibytes * 256
  let parent = try bench.guest("dev", pages: pages)
  try parent.write(0..<Int(Double(pages) * used), tag: 1)
  for round in 0..<3 {
    let clock = ContinuousClock()
    let armed = try clock.measure { try bench.client.arm(vm: "dev") }
    try parent.write(0..<256, tag: 2)
    let committed = try clock.measure { _ = try bench.client.commit(vm: "dev", snapshot: "s\(round)") }
    emit(
      "freeze",
      [
        ("ram_mib", mebibytes), ("used", used), ("round", round), ("arm_us", armed.microseconds),
        ("commit_us", committed.microseconds),
      ])
  }
}

extension Duration {
  var microseconds: Int {
    Int(components.seconds) * 1_000_000 + Int(components.attoseconds / 1_000_000_000_000)
  }
}

do {
  for window in [1, 4, 8, 16, 32] { try missingFaults(window: window) }
  try zeroFaults()
  for window in [1, 4, 8, 16, 32, 64] { try preimages(window: window) }
  for mebibytes in [256, 1024, 4096] {
    try freezing(mebibytes: mebibytes, used: 0.1)
    try freezing(mebibytes: mebibytes, used: 0.9)
  }
} catch {
  FileHandle.standardError.write(Data("bench-fault: \(error)\n".utf8))
  exit(1)
}
