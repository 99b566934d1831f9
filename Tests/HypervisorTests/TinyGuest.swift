import Glibc
import LinuxSystem

/// A guest without an operating system, for tests of machines: it counts in RAM and prints a letter for each count on its
/// serial port, so that where it stood when it was frozen can be read off its output and that of its clones.
enum TinyGuest {
  static let memoryBytes: UInt64 = 32 << 20

  /// What it prints: the letters A to P in turn, without end.
  static func letters(from start: Int, count: Int) -> String {
    String(decoding: (start..<start + count).map { UInt8(ascii: "A") + UInt8($0 % 16) }, as: UTF8.self)
  }

  /// Writes it as a multiboot kernel.
  static func write(to path: String) throws {
    let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    try image.withUnsafeBytes { try file.writeFully($0) }
  }

  /// Has the guest with this RAM file power itself off.
  static func powerOff(ramPath: String) throws {
    let file = try OwnedDescriptor.open(ramPath, O_RDWR)
    var command: UInt32 = 1
    try systemCall("pwrite") { pwrite(file.raw, &command, 4, off_t(counterAddress + 4)) }
  }

  private static let counterAddress = 0x200000

  /// Loaded at 1 MiB; the processor is in 32-bit protected mode.
  private static let image: [UInt8] = [
    0x02, 0xB0, 0xAD, 0x1B, 0x00, 0x00, 0x01, 0x00,  // magic; flags: addresses follow
    0xFE, 0x4F, 0x51, 0xE4, 0x00, 0x00, 0x10, 0x00,  // checksum; header's address
    0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00,  // load from; to the end of the file
    0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x10, 0x00,  // no bss; entry
    0xBB, 0x00, 0x00, 0x20, 0x00,  //       mov   ebx, 0x200000
    0xFF, 0x03,  //                   next: inc   dword [ebx]
    0xB9, 0x20, 0xA1, 0x07, 0x00,  //       mov   ecx, 500000
    0x49, 0x75, 0xFD,  //             wait: dec   ecx; jnz wait
    0x8B, 0x03, 0x48,  //                   mov   eax, [ebx]; dec eax
    0x24, 0x0F, 0x04, 0x41,  //             and   al, 15; add al, 'A'
    0x66, 0xBA, 0xF8, 0x03, 0xEE,  //       mov   dx, 0x3F8; out dx, al
    0x83, 0x7B, 0x04, 0x00,  //             cmp   dword [ebx + 4], 0
    0x74, 0xE4,  //                         je    next
    0x66, 0xBA, 0x04, 0x06,  //             mov   dx, 0x604 (power management control)
    0x66, 0xB8, 0x00, 0x20, 0x66, 0xEF,  // mov   ax, 0x2000; out dx, ax
    0xEB, 0xD8,  //                         jmp   next
  ]
}
