/// A kernel's virtual memory, by its own page tables (x86-64, 4 or 5 levels).
struct KernelMemory<Memory: AddressSpace>: AddressSpace {
  private let memory: Memory
  /// Physical address of the uppermost table.
  private let root: UInt64
  private let levels: Int

  /// Where the kernel maps its own image, without the offset that `phys_base` and the symbols bear.
  private static var imageStart: UInt64 { 0xffff_ffff_8000_0000 }
  private static var addressMask: UInt64 { 0x000f_ffff_ffff_f000 }

  init(_ memory: Memory, _ note: KernelNote) throws(GuestKernelError) {
    guard let table = note.symbol("init_top_pgt") ?? note.symbol("swapper_pg_dir"), table >= Self.imageStart
    else {
      throw GuestKernelError("its note names no page table")
    }
    guard try note.number("NUMBER(sme_mask)") == 0 else { throw GuestKernelError("its memory is encrypted") }
    let base = UInt64(bitPattern: Int64(try note.number("NUMBER(phys_base)")))
    self.memory = memory
    root = (table - Self.imageStart) &+ base
    levels = try note.number("NUMBER(pgtable_l5_enabled)") == 0 ? 4 : 5
  }

  /// Where a virtual address is, and how many bytes from there on are mapped together. Nil: not mapped.
  private func translate(_ address: UInt64) -> (physical: UInt64, bytes: UInt64)? {
    var table = root
    for level in stride(from: levels, through: 1, by: -1) {
      let shift = UInt64(12 + 9 * (level - 1))
      guard let entry = memory.load(UInt64.self, at: table + (address >> shift & 511) * 8), entry & 1 != 0
      else { return nil }
      let isLeaf = level == 1 || ((level == 2 || level == 3) && entry & 0x80 != 0)
      if isLeaf {
        let size: UInt64 = 1 << shift
        let start = entry & Self.addressMask & ~(size - 1)
        return (start | address & (size - 1), size - address & (size - 1))
      }
      table = entry & Self.addressMask
    }
    return nil
  }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
    var done = 0
    while done < buffer.count {
      guard let (physical, bytes) = translate(address &+ UInt64(done)) else { return false }
      let count = Int(min(bytes, UInt64(buffer.count - done)))
      guard memory.read(at: physical, into: .init(rebasing: buffer[done..<done + count])) else {
        return false
      }
      done += count
    }
    return true
  }
}
