/// A guest's memory at one instant, by physical or by its kernel's virtual addresses.
public protocol AddressSpace {
  /// Copies `buffer.count` bytes. False: not all of them are RAM that can be read here.
  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Bool
}

extension AddressSpace {
  /// A little-endian number. Nil: it can not be read.
  func load<Number: FixedWidthInteger>(_ type: Number.Type, at address: UInt64) -> Number? {
    var number: Number = 0
    let isRead = withUnsafeMutableBytes(of: &number) { read(at: address, into: $0) }
    return isRead ? Number(littleEndian: number) : nil
  }
}

/// Where QEMU's block of RAM lies in a guest's physical addresses: below 4 GiB, and what has no room there from 4 GiB on.
public struct RAMPlaces: Sendable, Codable, Equatable {
  public var bytes: UInt64
  /// Of these, how many begin at address 0.
  public var lowBytes: UInt64

  public init(bytes: UInt64, lowBytes: UInt64) {
    self.bytes = bytes
    self.lowBytes = min(lowBytes, bytes)
  }

  static let highStart: UInt64 = 4 << 30

  /// The end of the last address.
  var end: UInt64 { bytes > lowBytes ? Self.highStart + bytes - lowBytes : lowBytes }

  /// Where in the block a range of addresses lies. Nil: not all of it is RAM, or not in one piece.
  public func offset(of address: UInt64, count: Int) -> UInt64? {
    let count = UInt64(count)
    if address < lowBytes { return lowBytes - address >= count ? address : nil }
    guard address >= Self.highStart else { return nil }
    let offset = lowBytes + (address - Self.highStart)
    return offset <= bytes && bytes - offset >= count ? offset : nil
  }
}
