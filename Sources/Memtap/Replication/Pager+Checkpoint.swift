import Glibc
import GuestKernel
import GuestMemory
import LinuxSystem
import Replicator

/// The pages of a checkpoint: what differs between two snapshots of a VM.
///
/// A page that no snapshot from the base on has saved was not written since. Of the others both contents are here: as a
/// pre-image and as what the newer snapshot has. What the guest had free at the first checkpoint is zeros to the standby
/// until it is written: as to a clone of that moment (docs/avoidance.md). Which pages those are is kept with each
/// snapshot.
extension Pager {
  package func checkpoint(_ order: CheckpointOrder) throws(MemtapError) -> CheckpointPages {
    do {
      let snapshot = try snapshot(order.snapshot, "checkpoint")
      try awaitTakeOver("checkpoint", order.snapshot)
      let base = try order.base.map { try self.snapshot($0, "checkpoint") }
      if let base {
        guard base.originName == snapshot.originName || base.origin === snapshot.origin,
          base.thread === snapshot.thread, base.sequence < snapshot.sequence
        else { throw refuse(order, "\(base.id) is no earlier snapshot of the same VM") }
      }
      var free = PageBitmap(pageCount: snapshot.pageCount)
      if let base {
        free = try FreeAtStandby.read(base.directory, pageCount: base.pageCount)
      } else if let kernel = order.kernel {
        let places = RAMPlaces(bytes: snapshot.ramBytes, lowBytes: kernel.lowBytes)
        if let found = try? FreePages(
          in: FrozenMemory(snapshot: snapshot, places: places), places: places, note: kernel.note)
        {
          free = found.pages
        }
      }
      let part = try PartWriter(appendingTo: order.path)
      let writer = PageStreamWriter { try part.write($0) }
      let candidates = try snapshot.thread.attempt { () throws(MemtapError) -> PageBitmap in
        for one in [snapshot, base].compactMap({ $0 }) {
          if let reason = one.lostReason { throw self.refuse(order, "snapshot \(one.id) is lost: \(reason)") }
        }
        guard let base else { return snapshot.existing }
        return snapshot.changed(since: base)
      }
      try write(candidates, of: snapshot, since: base, &free, to: writer, order)
      try writer.finish()
      let written = try part.finish()
      try FreeAtStandby.write(free, snapshot.directory)
      snapshot.thread.perform { snapshot.isCheckpoint = true }
      let counters = writer.counters
      return CheckpointPages(
        offset: written.offset, length: written.length, digest: written.digest,
        dirtyPages: counters.whole + counters.changes + counters.zeros, wholePages: counters.whole,
        changedPages: counters.changes)
    } catch let error as MemtapError {
      throw error
    } catch {
      throw MemtapError("checkpoint", order.snapshot, error)
    }
  }

  private func refuse(_ order: CheckpointOrder, _ cause: String) -> MemtapError {
    MemtapError(.state, operation: "checkpoint", subject: order.snapshot, cause: cause)
  }

  private func write(
    _ candidates: PageBitmap, of snapshot: Snapshot, since base: Snapshot?, _ free: inout PageBitmap,
    to writer: PageStreamWriter, _ order: CheckpointOrder
  ) throws {
    // Of a first checkpoint nobody misses what was free.
    let skipped = base == nil ? free : nil
    let areThere = try snapshot.forEachPage(of: candidates, but: skipped, since: base) { page, now, before in
      if free.contains(page) {
        // Free and not written since: zeros to the standby.
        guard let before, memcmp(now, before, Page.bytes) != 0 else { return }
        free.remove(contentsOf: page..<page + 1)
        try writer.add(page, now, base: nil)
      } else {
        try writer.add(page, now, base: before)
      }
    }
    guard areThere else { throw refuse(order, "pages of it can not be read") }
  }
}

extension Snapshot {
  /// Pages of one step, between which faults are served: of many runs, for a guest that writes here and there has no long
  /// ones, and each step is a way to the family's thread and back.
  private static let pagesOfStep = 64

  /// What each of the pages is in this snapshot, and was in `base`, if there is one. Not on the family's thread, which goes
  /// on meanwhile. False: pages can not be read; `body` may have had some.
  func forEachPage(
    of pages: PageBitmap, but skipped: PageBitmap?, since base: Snapshot?,
    _ body: (PageIndex, UnsafeRawPointer, UnsafeRawPointer?) throws -> Void
  ) rethrows -> Bool {
    let most = Self.pagesOfStep
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: 2 * most * Page.bytes, alignment: 4096)
    defer { bytes.deallocate() }
    nonisolated(unsafe) let (now, before) = (bytes, bytes + most * Page.bytes)
    var ranges: [PageRange] = []
    var count = 0
    func step() throws -> Bool {
      let areThere = thread.perform { [ranges, thread] in
        var at = 0
        for range in ranges {
          guard thread.peek(range, of: self, into: now + at),
            base.map({ thread.peek(range, of: $0, into: before + at) }) ?? true
          else { return false }
          at += range.count * Page.bytes
        }
        return true
      }
      guard areThere else { return false }
      for (index, page) in ranges.joined().enumerated() {
        let at = index * Page.bytes
        try body(page, now + at, base == nil ? nil : UnsafeRawPointer(before + at))
      }
      ranges.removeAll(keepingCapacity: true)
      count = 0
      return true
    }
    for run in pages.runs {
      var first = run.lowerBound
      while first < run.upperBound {
        let range = first..<min(first + most - count, run.upperBound)
        first = range.upperBound
        if let skipped, skipped.contains(contentsOf: range) { continue }
        ranges.append(range)
        count += range.count
        if count == most { guard try step() else { return false } }
      }
    }
    return try step()
  }
}

extension PagerThread {
  /// Older snapshots get what they would find in this one, which nobody else will clone: a kept snapshot does not keep
  /// every later checkpoint's. Without memory for that it stays until they go.
  func absorb(_ snapshot: Snapshot) {
    guard snapshot.newer != nil, !snapshot.isLost, snapshot.clones.isEmpty else { return }
    arrival = .saved
    for older in snapshots where older.newer === snapshot && !older.isLost {
      var saved: [PageRange] = []
      snapshot.states.forEachRun(matching: 1 << PageState.present.rawValue | 1 << PageState.zero.rawValue) {
        saved.append($0)
      }
      for run in saved {
        for page in run where older.states[page] == .atOrigin {
          do throws(PageTrouble) { try resolve(page..<page + 1, of: older) } catch { return }
        }
      }
    }
    snapshot.isAbsorbed = true
  }
}

extension Snapshot {
  /// Pages that may differ from those of an earlier snapshot of the same origin: a superset. On the family's thread.
  func changed(since base: Snapshot) -> PageBitmap {
    var pages = PageBitmap(pageCount: pageCount)
    func all(but state: PageState) -> PageBitmap {
      var others = PageBitmap(pageCount: pageCount)
      states.forEachRun(matching: ~(1 << state.rawValue)) { others.insert(contentsOf: $0) }
      return others
    }
    let (notZero, notAtBase) = (all(but: .zero), all(but: .atBase))
    var holder: Snapshot? = base
    while let one = holder, one !== self {
      one.states.forEachRun(matching: 1 << PageState.present.rawValue) { pages.insert(contentsOf: $0) }
      one.states.forEachRun(matching: 1 << PageState.zero.rawValue) { pages.formUnion(notZero, in: $0) }
      one.states.forEachRun(matching: 1 << PageState.atBase.rawValue) { pages.formUnion(notAtBase, in: $0) }
      holder = one.newer
    }
    return pages
  }
}

/// Which pages are zeros to a standby though its VM has something else there: kept with the snapshot that the checkpoint
/// was made of, as runs (first 4 bytes, count 4).
enum FreeAtStandby {
  private static func path(_ directory: String) -> String { "\(directory)/free" }

  static func write(_ pages: PageBitmap, _ directory: String) throws(SystemError) {
    var bytes: [UInt8] = []
    pages.forEachRun { run in
      for number in [UInt32(run.lowerBound), UInt32(run.count)] {
        withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
      }
    }
    try replaceFile(path(directory), with: bytes)
  }

  /// ENOENT: no checkpoint was made of this snapshot.
  static func read(_ directory: String, pageCount: Int) throws -> PageBitmap {
    let file = try OwnedDescriptor.open(path(directory), O_RDONLY)
    var numbers = [UInt32](repeating: 0, count: Int(try file.size()) / 4)
    _ = try numbers.withUnsafeMutableBytes { try $0.isEmpty || file.readFully(into: $0) }
    var pages = PageBitmap(pageCount: pageCount)
    for index in stride(from: 0, to: numbers.count - 1, by: 2) {
      let first = Int(UInt32(littleEndian: numbers[index]))
      let count = Int(UInt32(littleEndian: numbers[index + 1]))
      guard first + count <= pageCount else {
        throw SystemError("read", subject: path(directory), errno: EINVAL)
      }
      pages.insert(contentsOf: first..<first + count)
    }
    return pages
  }
}
