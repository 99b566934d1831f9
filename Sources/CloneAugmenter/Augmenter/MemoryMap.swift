/// A mapping of a process, as a line of /proc/PID/maps tells of it.
package struct Mapping: Equatable, Sendable {
  package enum Kind: UInt8, Sendable {
    case anonymous = 0
    case file = 1
    /// The program break's.
    case heap = 2
    /// The main thread's, which the kernel lets grow.
    case stack = 3
    /// The kernel's own (vdso, vvar): the same on both sides, never carried.
    case kernel = 4
  }

  package var start: UInt64
  package var end: UInt64
  /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
  package var protection: UInt8
  package var isShared: Bool
  package var kind: Kind
  /// Of the file, bytes; 0 for anonymous memory.
  package var offset: UInt64
  package var device: UInt64
  package var inode: UInt64
  package var path: String

  package init(
    start: UInt64, end: UInt64, protection: UInt8, isShared: Bool = false, kind: Kind = .anonymous,
    offset: UInt64 = 0, device: UInt64 = 0, inode: UInt64 = 0, path: String = ""
  ) {
    self.start = start
    self.end = end
    self.protection = protection
    self.isShared = isShared
    self.kind = kind
    self.offset = offset
    self.device = device
    self.inode = inode
    self.path = path
  }

  package var isWritableShared: Bool { isShared && protection & 2 != 0 }

  /// Whether the same memory would be behind an address in both.
  package func hasBacking(of other: Mapping) -> Bool {
    guard isShared == other.isShared, (kind == .file) == (other.kind == .file) else { return false }
    return kind != .file
      || (inode == other.inode && device == other.device && offset &- start == other.offset &- other.start)
  }

  package func cut(to range: Range<UInt64>) -> Mapping {
    var piece = self
    if kind == .file { piece.offset = offset &+ (range.lowerBound &- start) }
    piece.start = range.lowerBound
    piece.end = range.upperBound
    return piece
  }
}

package enum MemoryMap {
  /// All of /proc/PID/maps, without the kernel's own mappings; nil: a line is not as it should be.
  package static func parse(_ bytes: [UInt8]) -> [Mapping]? {
    var mappings: [Mapping] = []
    var scanner = Scanner(bytes)
    while !scanner.isAtEnd {
      guard let start = scanner.number(16), scanner.skip(UInt8(ascii: "-")), let end = scanner.number(16),
        scanner.skip(UInt8(ascii: " ")), let flags = scanner.word(), flags.count == 4,
        let offset = scanner.number(16), scanner.skip(UInt8(ascii: " ")), let major = scanner.number(16),
        scanner.skip(UInt8(ascii: ":")), let minor = scanner.number(16), scanner.skip(UInt8(ascii: " ")),
        let inode = scanner.number(10), start < end
      else { return nil }
      let path = scanner.restOfLine()
      var mapping = Mapping(start: start, end: end, protection: 0)
      for (index, letter) in "rwx".utf8.enumerated() where flags[index] == letter {
        mapping.protection |= 1 << UInt8(index)
      }
      mapping.isShared = flags[3] == UInt8(ascii: "s")
      mapping.kind = kind(path, inode)
      if mapping.kind == .file {
        mapping.offset = offset
        mapping.device = major << 32 | minor
        mapping.inode = inode
        mapping.path = path
      }
      if mapping.kind != .kernel { mappings.append(mapping) }
    }
    return mappings
  }

  private static func kind(_ path: String, _ inode: UInt64) -> Mapping.Kind {
    switch path {
    case "[heap]": .heap
    case "[stack]": .stack
    case "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]": .kernel
    default: inode == 0 && !path.hasPrefix("/") ? .anonymous : .file
    }
  }
}

/// Over the bytes of a small text of the kernel's.
package struct Scanner {
  private let bytes: [UInt8]
  private var at = 0

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  package var isAtEnd: Bool { at >= bytes.count }

  package mutating func number(_ base: UInt64) -> UInt64? {
    var value: UInt64 = 0
    let begin = at
    while at < bytes.count, let digit = Self.digit(bytes[at]), digit < base {
      value = value &* base &+ digit
      at += 1
    }
    return at > begin ? value : nil
  }

  private static func digit(_ byte: UInt8) -> UInt64? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a")) + 10
    default: nil
    }
  }

  package mutating func skip(_ byte: UInt8) -> Bool {
    guard at < bytes.count, bytes[at] == byte else { return false }
    at += 1
    return true
  }

  /// Up to the next blank, which is skipped.
  package mutating func word() -> [UInt8]? {
    let begin = at
    while at < bytes.count, bytes[at] != UInt8(ascii: " "), bytes[at] != UInt8(ascii: "\n") { at += 1 }
    let word = Array(bytes[begin..<at])
    if at < bytes.count, bytes[at] == UInt8(ascii: " ") { at += 1 }
    return word.isEmpty ? nil : word
  }

  /// Without the blanks before it.
  package mutating func restOfLine() -> String {
    while at < bytes.count, bytes[at] == UInt8(ascii: " ") { at += 1 }
    let begin = at
    while at < bytes.count, bytes[at] != UInt8(ascii: "\n") { at += 1 }
    let text = String(decoding: bytes[begin..<at], as: UTF8.self)
    at += 1
    return text
  }
}
