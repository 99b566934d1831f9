/// What a block left behind besides the contents of memory.
package struct BlockState: Equatable, Sendable {
  /// Why it came home.
  package enum End: UInt32, Sendable {
    /// It reached its end.
    case returned = 0
    /// It was about to make a system call that is home's.
    case systemCall = 1
    /// A signal arrived that home has, too.
    case signal = 2
  }

  package struct Handler: Equatable, Sendable {
    package var signal: UInt32
    /// The kernel's struct sigaction, 32 bytes.
    package var action: [UInt8]

    package init(signal: UInt32, action: [UInt8]) {
      self.signal = signal
      self.action = action
    }
  }

  package enum FileChange: Equatable, Sendable {
    case moved(descriptor: UInt32, offset: UInt64)
    case closed(descriptor: UInt32)
    case opened(descriptor: UInt32, flags: UInt32, offset: UInt64, path: String)
  }

  package var end: End = .returned
  package var runMicroseconds: UInt64 = 0
  package var collectMicroseconds: UInt64 = 0
  /// struct user_regs_struct, 216 bytes.
  package var registers: [UInt8] = []
  /// As PTRACE_GETREGSET of NT_X86_XSTATE gives it.
  package var xstate: [UInt8] = []
  package var mask: UInt64 = 0
  package var breakBefore: UInt64 = 0
  package var breakAfter: UInt64 = 0
  package var mappings: [Mapping] = []
  package var handlers: [Handler] = []
  package var files: [FileChange] = []
  /// It made system calls that a clone which is kept leaves to home: about files, or signals' handlers.
  package var asksMore = false

  package static let registerBytes = 216
  static let xstateLimit = 64 << 10
  static let listLimit: UInt32 = 70_000

  package init() {}

  package func encoded() -> [UInt8] {
    var writer = FieldWriter()
    writer.word(UInt64(end.rawValue))
    for value in [runMicroseconds, collectMicroseconds, mask, breakBefore, breakAfter] { writer.word(value) }
    writer.bytes(registers)
    writer.bytes(xstate)
    writer.word(UInt64(mappings.count))
    for mapping in mappings {
      for value in [mapping.start, mapping.end, mapping.offset, mapping.device, mapping.inode] {
        writer.word(value)
      }
      writer.word(
        UInt64(mapping.protection) | (mapping.isShared ? 1 << 8 : 0) | UInt64(mapping.kind.rawValue) << 16)
      writer.bytes(Array(mapping.path.utf8))
    }
    writer.word(UInt64(handlers.count))
    for handler in handlers {
      writer.word(UInt64(handler.signal))
      writer.bytes(handler.action)
    }
    writer.word(UInt64(files.count))
    for file in files { Self.encode(file, &writer) }
    writer.word(asksMore ? 1 : 0)
    return writer.output
  }

  private static func encode(_ file: FileChange, _ writer: inout FieldWriter) {
    let (kind, descriptor, flags, offset, path): (UInt64, UInt32, UInt32, UInt64, String) =
      switch file {
      case .moved(let descriptor, let offset): (0, descriptor, 0, offset, "")
      case .closed(let descriptor): (1, descriptor, 0, 0, "")
      case .opened(let descriptor, let flags, let offset, let path): (2, descriptor, flags, offset, path)
      }
    for value in [kind, UInt64(descriptor), UInt64(flags), offset] { writer.word(value) }
    writer.bytes(Array(path.utf8))
  }

  /// Throws `ResultError` unless every field is what it may be and all bytes are used up.
  package init(decoding bytes: UnsafeRawBufferPointer) throws(ResultError) {
    var reader = FieldReader(bytes)
    guard let end = End(rawValue: UInt32(truncatingIfNeeded: try reader.word())) else {
      throw ResultError("the reason of its end")
    }
    self.end = end
    runMicroseconds = try reader.word()
    collectMicroseconds = try reader.word()
    mask = try reader.word()
    breakBefore = try reader.word()
    breakAfter = try reader.word()
    registers = try reader.bytes(limit: Self.registerBytes)
    xstate = try reader.bytes(limit: Self.xstateLimit)
    guard registers.count == Self.registerBytes else { throw ResultError("registers") }
    for _ in 0..<(try reader.count(Self.listLimit)) { mappings.append(try Self.mapping(&reader)) }
    for index in mappings.indices.dropFirst() where mappings[index].start < mappings[index - 1].end {
      throw ResultError("mappings that overlap")
    }
    for _ in 0..<(try reader.count(64)) {
      let signal = try reader.word()
      let action = try reader.bytes(limit: 32)
      guard (1...64).contains(signal), action.count == 32 else { throw ResultError("a signal's handler") }
      handlers.append(Handler(signal: UInt32(signal), action: action))
    }
    for _ in 0..<(try reader.count(Self.listLimit)) { files.append(try Self.file(&reader)) }
    asksMore = try reader.word() != 0
    guard reader.isAtEnd else { throw ResultError("its length") }
  }

  private static func mapping(_ reader: inout FieldReader) throws(ResultError) -> Mapping {
    var mapping = Mapping(start: try reader.word(), end: try reader.word(), protection: 0)
    mapping.offset = try reader.word()
    mapping.device = try reader.word()
    mapping.inode = try reader.word()
    let flags = try reader.word()
    mapping.protection = UInt8(flags & 7)
    mapping.isShared = flags & 1 << 8 != 0
    guard let kind = Mapping.Kind(rawValue: UInt8(flags >> 16 & 255)), mapping.start < mapping.end,
      mapping.end <= 1 << 47, (mapping.start | mapping.end) & 4095 == 0
    else { throw ResultError("a mapping") }
    mapping.kind = kind
    mapping.path = try reader.text()
    return mapping
  }

  private static func file(_ reader: inout FieldReader) throws(ResultError) -> FileChange {
    let kind = try reader.word()
    let (descriptor, flags, offset) = (try reader.word(), try reader.word(), try reader.word())
    let path = try reader.text()
    guard descriptor < 1 << 20, flags < 1 << 32, offset < 1 << 63 else { throw ResultError("a descriptor") }
    switch kind {
    case 0: return .moved(descriptor: UInt32(descriptor), offset: offset)
    case 1: return .closed(descriptor: UInt32(descriptor))
    case 2 where path.hasPrefix("/"):
      return .opened(descriptor: UInt32(descriptor), flags: UInt32(flags), offset: offset, path: path)
    default: throw ResultError("a file")
    }
  }
}

/// A result that is not to be used: what of it is wrong.
package struct ResultError: Error, CustomStringConvertible {
  package var description: String

  package init(_ part: String) { description = "the result is damaged: \(part)" }
}
