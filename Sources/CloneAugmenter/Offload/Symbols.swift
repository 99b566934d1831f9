import Augmenter
import CTrace
import Glibc

/// Finds the block in the program and in the libraries that it has loaded.
final class Symbols {
  private let block: String
  private let tracee: Tracee
  private let breakpoints: Breakpoints
  private var seen: Set<String> = []

  init(_ block: String, _ tracee: Tracee, _ breakpoints: Breakpoints) {
    self.block = block
    self.tracee = tracee
    self.breakpoints = breakpoints
  }

  private var isFound: Bool { breakpoints.first(CT_BLOCK) != nil }

  /// The program has just been executed; its loader has not run.
  func programStarts() {
    seen = []
    breakpoints.forgetAll()
    guard let entry = auxiliary(9) else { return }
    if let path = linkTarget("/proc/\(tracee.pid)/exe"), let file = MappedFile("/proc/\(tracee.pid)/exe"),
      let symbols = ELFSymbols(file.bytes)
    {
      defer { withExtendedLifetime(file) {} }
      seen.insert(path)
      take(symbols, bias: entry &- symbols.entry)
    }
    if !isFound { breakpoints.add(entry, CT_START) }
  }

  /// All libraries that the program was linked with are there, or others were loaded.
  func librariesChanged() {
    breakpoints.remove(CT_START)
    guard !isFound, let mappings = tracee.mappings() else { return }
    for mapping in mappings
    where mapping.kind == .file && !mapping.isShared && seen.insert(mapping.path).inserted {
      guard let file = MappedFile("/proc/\(tracee.pid)/root" + mapping.path),
        let symbols = ELFSymbols(file.bytes), let address = symbols.address(ofOffset: mapping.offset)
      else { continue }
      defer { withExtendedLifetime(file) {} }
      let bias = mapping.start &- address
      take(symbols, bias: bias)
      if mapping.path.contains("/ld-"), let loader = symbols.function("_dl_debug_state") {
        breakpoints.add(bias &+ loader, CT_LOADER)
      }
      if isFound { break }
    }
    if isFound { breakpoints.remove(CT_LOADER) }
  }

  private func take(_ symbols: ELFSymbols, bias: UInt64) {
    if let function = symbols.function(block) { breakpoints.add(bias &+ function, CT_BLOCK) }
    if breakpoints.first(CT_CC_START) == nil, let start = symbols.function("cc_start"),
      let stop = symbols.function("cc_stop")
    {
      breakpoints.add(bias &+ start, CT_CC_START)
      breakpoints.add(bias &+ stop, CT_CC_STOP, isSet: false)
    }
    // Whether a cc_start names the block is seen when it is called.
    if isFound { breakpoints.shared.pointee.found = 1 }
  }

  /// A value of the program's auxiliary vector.
  private func auxiliary(_ type: UInt64) -> UInt64? {
    guard let vector = contents(of: "/proc/\(tracee.pid)/auxv") else { return nil }
    return vector.withUnsafeBytes { bytes in
      for at in stride(from: 0, to: bytes.count - 15, by: 16)
      where bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self) == type {
        return bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)
      }
      return nil
    }
  }
}
