import CTrace
import Glibc

/// Two files in memory that outlive a tracer: the result that is being merged, and the state that it began with.
final class Journal {
  private let result: Int32
  private let before: Int32
  private var mapping: UnsafeMutableRawPointer?
  /// The most that a result can be: half of the guest's memory.
  let capacity: Int

  init() throws(SystemError) {
    result = ct_memfd("sf-offload result")
    before = ct_memfd("sf-offload state before")
    guard result >= 0, before >= 0 else { throw SystemError("memfd_create") }
    let memory = contents(of: "/proc/meminfo").flatMap { field("MemTotal", of: $0, base: 10) } ?? 65536
    capacity = Int(memory) << 10 / 2 & ~4095
    guard ftruncate(result, capacity) == 0 else { throw SystemError("the journal") }
    let memoryPointer = mmap(nil, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, result, 0)
    guard let memoryPointer, memoryPointer != MAP_FAILED else { throw SystemError("map the journal") }
    mapping = memoryPointer
  }

  func bytes(_ count: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: mapping, count: count) }

  /// False: there is no room.
  func append(_ bytes: UnsafeRawBufferPointer, at count: Int) -> Bool {
    guard bytes.count <= capacity - count else { return false }
    (mapping! + count).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    return true
  }

  /// For a test's fault.
  func alter(_ offset: Int) {
    let place = mapping! + offset
    place.storeBytes(of: place.load(as: UInt8.self) ^ 0x10, as: UInt8.self)
  }

  /// Gives its memory back.
  func clear() {
    ftruncate(result, 0)
    ftruncate(result, off_t(capacity))
  }

  func keepBefore(_ bytes: [UInt8]) -> Bool {
    ftruncate(before, 0)
    return pwrite(before, bytes, bytes.count, 0) == bytes.count
  }

  func takeBefore(_ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return pread(before, &bytes, count, 0) == count ? bytes : nil
  }
}
