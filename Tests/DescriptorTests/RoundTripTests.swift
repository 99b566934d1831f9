import Descriptor
import Testing

@Suite struct RoundTripTests {
  @Test func everyFieldComesBack() throws {
    let descriptor = sampleDescriptor()
    #expect(try VMDescriptor.decode(try descriptor.encode()) == descriptor)
  }

  @Test func emptyValuesComeBack() throws {
    let descriptor = VMDescriptor(
      snapshot: "", parent: "", image: "", createdMicroseconds: 0, ramBytes: 4096, vcpus: 1,
      compatibility: "", kernelCommandLine: "", deviceState: [], existingPages: [])
    #expect(try VMDescriptor.decode(try descriptor.encode()) == descriptor)
  }

  /// The worst layout: every other page of 1 GiB. It must fall back to the bitmap.
  @Test func stayingUnderHalfAMegabyteAGiB() throws {
    var descriptor = sampleDescriptor()
    descriptor.ramBytes = 1 << 30
    descriptor.deviceState = .init(repeating: 7, count: 350 << 10)
    descriptor.existingPages = stride(from: 0, to: 262_144, by: 2).map { .init(first: $0, count: 1) }
    let bytes = try descriptor.encode()
    #expect(bytes.count <= 500_000)
    #expect(try VMDescriptor.decode(bytes) == descriptor)
  }

  @Test(arguments: [UInt64(0x5EED), 1, 2, 3, 4, 5, 6, 7])
  func randomLayoutsComeBack(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<50 {
      var descriptor = sampleDescriptor()
      let pages = UInt64.random(in: 1...5000, using: &random)
      descriptor.ramBytes = pages * VMDescriptor.pageBytes
      descriptor.existingPages = []
      let reach = UInt64.random(in: 1...40, using: &random)
      var page = UInt64.random(in: 0...reach, using: &random)
      while page < pages {
        let count = min(pages - page, UInt64.random(in: 1...reach, using: &random))
        descriptor.existingPages.append(.init(first: page, count: count))
        page += count + UInt64.random(in: 1...reach, using: &random)
      }
      #expect(try VMDescriptor.decode(try descriptor.encode()) == descriptor, "seed \(seed)")
    }
  }

  @Test func writerRefusesWhatCouldNotBeReadBack() {
    var overlapping = sampleDescriptor()
    overlapping.existingPages = [.init(first: 0, count: 4), .init(first: 3, count: 1)]
    #expect(throws: DescriptorError.self) { try overlapping.encode() }

    var touching = sampleDescriptor()
    touching.existingPages = [.init(first: 0, count: 4), .init(first: 4, count: 1)]
    #expect(throws: DescriptorError.self) { try touching.encode() }

    var beyond = sampleDescriptor()
    beyond.existingPages = [.init(first: 255, count: 2)]
    #expect(throws: DescriptorError.self) { try beyond.encode() }

    var wrapping = sampleDescriptor()
    wrapping.existingPages = [.init(first: 255, count: .max)]
    #expect(throws: DescriptorError.self) { try wrapping.encode() }

    var notPages = sampleDescriptor()
    notPages.ramBytes = 4097
    #expect(throws: DescriptorError.self) { try notPages.encode() }

    var longText = sampleDescriptor()
    longText.kernelCommandLine = String(repeating: "x", count: 65_536)
    #expect(throws: DescriptorError.self) { try longText.encode() }
  }

  @Test func otherMachineIsRefusedWithBothNames() throws {
    let descriptor = sampleDescriptor()
    try descriptor.requireCompatible(with: "qemu 7.2.22 pc qemu64 tcg")
    #expect(throws: DescriptorError.incompatible(made: descriptor.compatibility, here: "qemu 8 kvm")) {
      try descriptor.requireCompatible(with: "qemu 8 kvm")
    }
  }
}
