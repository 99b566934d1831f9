import Descriptor
import Testing

@Suite struct DamageTests {
  @Test func everyFlippedBitIsRefused() throws {
    let whole = try sampleDescriptor().encode()
    for index in whole.indices {
      for bit in 0..<8 as Range<UInt8> {
        var bytes = whole
        bytes[index] ^= 1 << bit
        #expect(throws: DescriptorError.self, "byte \(index) bit \(bit)") { try VMDescriptor.decode(bytes) }
      }
    }
  }

  @Test func everyTruncationIsRefusedAsOne() throws {
    let whole = try sampleDescriptor().encode()
    for count in whole.indices {
      #expect(
        throws: DescriptorError.truncated(
          expectedBytes: UInt64(count < 64 ? 64 : whole.count), actualBytes: UInt64(count))
      ) { try VMDescriptor.decode(Array(whole[..<count])) }
    }
  }

  @Test func bytesBehindItAreRefused() throws {
    #expect(throws: DescriptorError.self) { try VMDescriptor.decode(try sampleDescriptor().encode() + [0]) }
  }

  @Test(arguments: [UInt16(0), 1, 3, 0xFFFF])
  func otherVersionIsNamed(version: UInt16) throws {
    let bytes = patched(try sampleDescriptor().encode(), at: 8, version)
    #expect(throws: DescriptorError.version(found: version, supported: 2)) { try VMDescriptor.decode(bytes) }
  }

  @Test func otherFileIsNoDescriptor() {
    #expect(throws: DescriptorError.badMagic) { try VMDescriptor.decode(Array("#!/bin/sh\n".utf8)) }
  }

  /// The checksum is right in all of these: they come from a writer that lies.
  @Test func lyingLengthsAreRefused() throws {
    let whole = try sampleDescriptor().encode()
    let section0 = 64
    for value in [0 as UInt64, 1, 64, UInt64(whole.count), UInt64(whole.count) + 1, .max, .max - 63] {
      for offset in [16, section0 + 8, section0 + 16, section0 + 64 + 8, section0 + 64 + 16] {
        let bytes = patched(whole, at: offset, value)
        if bytes == whole { continue }
        #expect(throws: DescriptorError.self, "\(value) at \(offset)") {
          try VMDescriptor.decode(resealed(bytes))
        }
      }
    }
    for count in [0 as UInt32, 1, 4, 6, 65, .max] {
      #expect(throws: DescriptorError.self, "\(count) sections") {
        try VMDescriptor.decode(resealed(patched(whole, at: 12, count)))
      }
    }
  }

  @Test func sizesOverTheLimitsAreRefused() throws {
    let bytes = try sampleDescriptor().encode()
    for limits in [
      DescriptorLimits(totalBytes: UInt64(bytes.count) - 1), DescriptorLimits(deviceStateBytes: 3),
      DescriptorLimits(ramBytes: 255 * 4096), DescriptorLimits(vcpus: 1), DescriptorLimits(disks: 0),
      DescriptorLimits(layersOfADisk: 1),
    ] {
      #expect(throws: DescriptorError.self) { try VMDescriptor.decode(bytes, limits: limits) }
    }
  }

  @Test func ramThatDoesNotFitTheLayoutIsRefused() throws {
    let bytes = try sampleDescriptor().encode()
    for ram in [0 as UInt64, 1, 255 * 4096, 1 << 63, .max] {
      let lying = withSection(bytes, entry: 0) { $0 = patched($0, at: 8, ram) }
      #expect(throws: DescriptorError.self, "\(ram) bytes") { try VMDescriptor.decode(lying) }
    }
  }

  @Test func wrongSectionDigestIsNamed() throws {
    let bytes = try sampleDescriptor().encode()
    let state = resealed(patched(bytes, at: 64 + 3 * 64 + 24, UInt64(0)))
    #expect(throws: DescriptorError.checksum(part: "device state")) { try VMDescriptor.decode(state) }
  }

  @Test func unknownSectionIsSkippedUnlessRequired() throws {
    let descriptor = sampleDescriptor()
    let network = 64 + 4 * 64
    let unknown = patched(try descriptor.encode(), at: network, UInt32(99))
    #expect(throws: DescriptorError.unknownSection(type: 99)) { try VMDescriptor.decode(resealed(unknown)) }
    var without = descriptor
    without.network = nil
    let optional = resealed(patched(unknown, at: network + 4, UInt32(0)))
    #expect(try VMDescriptor.decode(optional) == without)
  }

  /// Random damage behind right checksums: anything but a crash or an over-large result will do.
  @Test(arguments: [UInt64(1), 2, 3, 4])
  func randomDamageNeverTraps(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let whole = try sampleDescriptor().encode()
    for round in 0..<2000 {
      let entry = Int.random(in: 0..<5, using: &random)
      let bytes = withSection(whole, entry: entry) { body in
        for _ in 0...Int.random(in: 0...3, using: &random) where !body.isEmpty {
          body[Int.random(in: body.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
      }
      guard let decoded = try? VMDescriptor.decode(bytes) else { continue }
      let pages = decoded.ramBytes / VMDescriptor.pageBytes
      #expect(
        decoded.existingPages.allSatisfy { $0.count > 0 && $0.first + $0.count <= pages },
        "seed \(seed) round \(round)")
    }
  }
}
