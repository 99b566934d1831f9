import Augmenter
import CTrace
import Glibc

/// System calls in the program's name that give it what the block has made away.
extension Merge {
  /// At the scratch page, which is made when it is first needed.
  private func place(_ bytes: [UInt8]) throws -> UInt64 {
    if scratch == 0 {
      let made = try tracee.call(tid, 9, 0, 4096, 3, 0x22, ~0, 0)
      guard made > 0 else { throw SystemError("map a page", Int32(truncatingIfNeeded: -made)) }
      scratch = UInt64(made)
    }
    guard tracee.write(scratch, bytes) else { throw SystemError("write a page", EFAULT) }
    return scratch
  }

  private func openPath(_ path: String, _ flags: UInt32) throws -> Int64 {
    let bytes = Array(path.utf8) + [0]
    guard bytes.count <= 4096 else { return Int64(-ENAMETOOLONG) }
    return try tracee.call(tid, 2, try place(bytes), UInt64(flags), 0)
  }

  func unmap(_ range: Range<UInt64>) throws {
    let result = try tracee.call(tid, 11, range.lowerBound, range.upperBound - range.lowerBound)
    guard result == 0 else { throw SystemError("unmap its memory", Int32(-result)) }
  }

  /// `replacing`: whatever is there goes; else it is refused where something is.
  func map(_ mapping: Mapping, replacing: Bool) throws {
    var file: Int64 = -1
    if mapping.kind == .file {
      file = try openPath(mapping.path, UInt32(O_RDONLY | O_CLOEXEC))
      guard file >= 0 else { throw Refused(reason: "\(mapping.path) can not be opened") }
    }
    let flags: UInt64 =
      (mapping.isShared ? 1 : 2) | (file < 0 ? 0x20 : 0) | (replacing ? 0x10 : 0x10_0000)
    let result = try tracee.call(
      tid, 9, mapping.start, mapping.end - mapping.start, UInt64(mapping.protection), flags,
      UInt64(bitPattern: file), mapping.offset)
    if file >= 0 { _ = try tracee.call(tid, 3, UInt64(file)) }
    guard UInt64(bitPattern: result) == mapping.start else {
      if replacing { throw SystemError("map its memory", Int32(truncatingIfNeeded: -result)) }
      throw Refused(reason: "no memory")
    }
  }

  /// Each can be done twice.
  func setFiles(_ files: [BlockState.FileChange]) throws {
    for case .closed(let descriptor) in files { _ = try tracee.call(tid, 3, UInt64(descriptor)) }
    for file in files {
      switch file {
      case .closed: break
      case .moved(let descriptor, let offset): try seek(descriptor, offset)
      case .opened(let descriptor, let flags, let offset, let path):
        let opened = try openPath(path, flags)
        guard opened >= 0 else { throw SystemError("open \(path)", Int32(-opened)) }
        if opened != Int64(descriptor) {
          let closes = UInt64(flags) & UInt64(O_CLOEXEC)
          _ = try tracee.call(tid, 292, UInt64(opened), UInt64(descriptor), closes)
          _ = try tracee.call(tid, 3, UInt64(opened))
        }
        try seek(descriptor, offset)
      }
    }
  }

  private func seek(_ descriptor: UInt32, _ offset: UInt64) throws {
    let result = try tracee.call(tid, 8, UInt64(descriptor), offset, 0)
    guard result == Int64(bitPattern: offset) else {
      throw SystemError("set the offset of a file", Int32(truncatingIfNeeded: -result))
    }
  }

  func setHandlers(_ handlers: [BlockState.Handler]) throws {
    for handler in handlers {
      let result = try tracee.call(tid, 13, UInt64(handler.signal), try place(handler.action), 0, 8)
      guard result == 0 else { throw SystemError("set a signal's handler", Int32(-result)) }
    }
  }
}
