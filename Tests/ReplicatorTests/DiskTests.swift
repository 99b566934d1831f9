import Foundation
import GuestMemory
import Replicator
import Testing

/// Disks in a checkpoint's file: a standby's files become what was written, and of damaged files nothing is used.
@Suite struct DiskTests {
  /// Not a multiple of a page.
  static let diskBytes = 200 * Page.bytes + 512

  /// A directory of its own, which is removed afterwards.
  private final class Place {
    let directory = NSTemporaryDirectory() + "disks-\(UInt64.random(in: 0 ... .max))"
    init() throws {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: directory) }
    var checkpoint: String { directory + "/checkpoint" }
    func disk(_ index: Int) -> String { directory + "/disk-\(index)" }
    func contents(_ index: Int) throws -> [UInt8] {
      Array(try Data(contentsOf: URL(fileURLWithPath: disk(index))))
    }
  }

  /// Disks as the guest changes them, and the pages that it has written since the last checkpoint.
  private struct Disks {
    var contents = [[UInt8]](repeating: [UInt8](repeating: 0, count: DiskTests.diskBytes), count: 2)
    var written: [Set<Int>] = [[], []]

    mutating func write(_ random: inout CheckpointTests.Generator) {
      for disk in contents.indices {
        for page in 0...DiskTests.diskBytes / Page.bytes where random.next() % 5 == 0 {
          let isZero = random.next() % 3 == 0
          let begin = page * Page.bytes
          for at in begin..<min(begin + Page.bytes, DiskTests.diskBytes) {
            contents[disk][at] = isZero ? 0 : UInt8(truncatingIfNeeded: random.next())
          }
          written[disk].insert(page)
        }
      }
    }

    mutating func checkpoint(_ place: Place, sequence: UInt64) throws {
      let made = try CheckpointFile.create(place.checkpoint, metadata: [], deviceState: [])
      let writer = DisksWriter(try PartWriter(appendingTo: place.checkpoint))
      for (disk, bytes) in contents.enumerated() {
        try writer.add(diskBytes: UInt64(bytes.count)) { pages in
          for page in written[disk].sorted() {
            let end = min((page + 1) * Page.bytes, bytes.count)
            var one = Array(bytes[page * Page.bytes..<end])
            one += [UInt8](repeating: 0, count: Page.bytes - one.count)
            try one.withUnsafeBytes { try pages.replace(page, with: $0.baseAddress!) }
          }
        }
      }
      let disks = try writer.finish()
      let pages = try PartWriter(appendingTo: place.checkpoint).finish()
      try made.file.seal(
        CheckpointHeader(
          replica: Array(0..<16), sequence: sequence, base: sequence - 1,
          baseDigest: [UInt8](repeating: sequence == 1 ? 0 : 9, count: 32), ramBytes: 4096,
          metadata: made.metadata, deviceState: made.deviceState, disks: disks, pages: pages))
      written = [[], []]
    }
  }

  private static func disks(_ place: Place) throws -> [CheckpointDisk] {
    let file = try CheckpointFile.open(place.checkpoint)
    return try file.disks(try file.verify())
  }

  @Test(arguments: 1...8) func disksBecomeWhatWasWritten(seed: UInt64) throws {
    let place = try Place()
    var random = CheckpointTests.Generator(state: seed)
    var disks = Disks()
    disks.write(&random)
    try disks.checkpoint(place, sequence: 1)
    for (index, disk) in try Self.disks(place).enumerated() { try disk.create(place.disk(index)) }
    #expect(try [place.contents(0), place.contents(1)] == disks.contents)
    for sequence in 2...4 as ClosedRange<UInt64> {
      let before = disks.contents
      disks.write(&random)
      try disks.checkpoint(place, sequence: sequence)
      let changes = try Self.disks(place)
      for (index, disk) in changes.enumerated() { try disk.reserve(in: place.disk(index)) }
      #expect(try [place.contents(0), place.contents(1)] == before, "to take room changes nothing")
      // Whoever began it may have died in the middle.
      try changes[0].apply(to: place.disk(0))
      for (index, disk) in changes.enumerated() { try disk.apply(to: place.disk(index)) }
      #expect(try [place.contents(0), place.contents(1)] == disks.contents)
    }
  }

  @Test func aDiskOfAnotherSizeIsLeftAlone() throws {
    let place = try Place()
    var random = CheckpointTests.Generator(state: 4)
    var disks = Disks()
    disks.write(&random)
    try disks.checkpoint(place, sequence: 2)
    try Data(count: Self.diskBytes - 512).write(to: URL(fileURLWithPath: place.disk(0)))
    let disk = try Self.disks(place)[0]
    #expect(throws: CheckpointError.self) { try disk.reserve(in: place.disk(0)) }
    #expect(throws: CheckpointError.self) { try disk.apply(to: place.disk(0)) }
    #expect(try place.contents(0) == [UInt8](repeating: 0, count: Self.diskBytes - 512))
  }

  @Test func withoutDisksThePartIsEmpty() throws {
    let place = try Place()
    var disks = Disks()
    disks.contents = []
    try disks.checkpoint(place, sequence: 1)
    #expect(try Self.disks(place).isEmpty)
  }

  @Test(arguments: 1...40) func aDamagedPartIsFound(seed: UInt64) throws {
    let place = try Place()
    var random = CheckpointTests.Generator(state: seed)
    var disks = Disks()
    disks.write(&random)
    try disks.checkpoint(place, sequence: 1)
    let part = try CheckpointFile.open(place.checkpoint).verify().disks
    var bytes = Array(try Data(contentsOf: URL(fileURLWithPath: place.checkpoint)))
    bytes[Int(part.offset + random.next() % part.length)] ^= 1 << UInt8(random.next() % 8)
    try Data(bytes).write(to: URL(fileURLWithPath: place.checkpoint))
    #expect(throws: CheckpointError.digest("its disks")) { _ = try Self.disks(place) }
  }

  /// Behind the digests, against a home that lies: no byte out of the disks, no trap, no endless room.
  @Test func disksOfAnyBytesStayWithinTheirFiles() throws {
    let place = try Place()
    var random = CheckpointTests.Generator(state: 21)
    var disks = Disks()
    disks.write(&random)
    try disks.checkpoint(place, sequence: 1)
    let part = try CheckpointFile.open(place.checkpoint).verify().disks
    let good = Array(try Data(contentsOf: URL(fileURLWithPath: place.checkpoint)))
    for index in 0..<2 { try Self.disks(place)[index].create(place.disk(index)) }
    var read = 0
    for round in 0..<600 {
      var bytes = good
      for _ in 0..<Int(1 + random.next() % 3) {
        // Heads of blocks, or the table at the end.
        let at = round % 2 == 0 ? random.next() % 400 : part.length - 1 - random.next() % 36
        bytes[Int(part.offset + at)] = UInt8(truncatingIfNeeded: random.next())
      }
      try Data(bytes).write(to: URL(fileURLWithPath: place.checkpoint))
      let file = try CheckpointFile.open(place.checkpoint)
      guard let found = try? file.disks(try file.header()) else { continue }
      read += 1
      for (index, disk) in found.enumerated() where index < 2 {
        try? disk.apply(to: place.disk(index))
        #expect(try place.contents(index).count == Self.diskBytes)
      }
    }
    #expect(read > 100)
  }
}
