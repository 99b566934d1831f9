/// What a Linux kernel says of its own layout for tools that read its memory from outside (kdump, makedumpfile): the note
/// VMCOREINFO, lines of `KEY=VALUE` at the physical address that /sys/kernel/vmcoreinfo tells
/// (Documentation/admin-guide/kdump/vmcoreinfo.rst).
struct KernelNote {
  private var values: [Substring: Substring] = [:]

  /// The kernel's note is one page.
  static let bytesMax = 64 << 10

  ///     name size 4 | description size 4 | type 4 | "VMCOREINFO\0" to a multiple of 4 | description
  init(in memory: some AddressSpace, at place: KernelNotePlace) throws(GuestKernelError) {
    guard place.bytes >= 24, place.bytes <= Self.bytesMax else {
      throw GuestKernelError("a note of \(place.bytes) bytes")
    }
    var note = [UInt8](repeating: 0, count: Int(place.bytes))
    guard note.withUnsafeMutableBytes({ memory.read(at: place.address, into: $0) }) else {
      throw GuestKernelError("its note at \(place.address) can not be read")
    }
    func number(_ offset: Int) -> Int {
      Int(note[offset..<offset + 4].reversed().reduce(0 as UInt32) { $0 << 8 | UInt32($1) })
    }
    let (nameBytes, textBytes) = (number(0), number(4))
    guard nameBytes == 11, note[12..<22].elementsEqual("VMCOREINFO".utf8), 24 + textBytes <= note.count else {
      throw GuestKernelError("there is no VMCOREINFO at \(place.address)")
    }
    let text = String(decoding: note[24..<24 + textBytes], as: UTF8.self)
    for line in text.split(separator: "\n") {
      guard let equals = line.firstIndex(of: "=") else { continue }
      values[line[..<equals]] = line[line.index(after: equals)...]
    }
  }

  /// A size, an offset, a length or a number, decimal.
  func number(_ key: String) throws(GuestKernelError) -> Int {
    guard let text = values[Substring(key)], let number = Int(text) else {
      throw GuestKernelError("its note lacks \(key)")
    }
    return number
  }

  /// The virtual address of a symbol. Nil: it has none.
  func symbol(_ name: String) -> UInt64? {
    values[Substring("SYMBOL(\(name))")].flatMap { UInt64($0, radix: 16) }
  }
}

/// Where a kernel's note lies, guest-physical.
public struct KernelNotePlace: Sendable, Codable, Equatable {
  public var address: UInt64
  public var bytes: UInt32
  public init(address: UInt64, bytes: UInt32) {
    self.address = address
    self.bytes = bytes
  }
}

/// Why a guest's kernel could not be read: its memory is then treated as if all of it were in use.
public struct GuestKernelError: Error, Sendable, CustomStringConvertible {
  public var description: String
  init(_ description: String) { self.description = description }
}
