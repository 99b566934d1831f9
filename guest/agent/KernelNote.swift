import Glibc

/// Where the kernel describes its own memory (/sys/kernel/vmcoreinfo), by which the host finds what is free at a fork.
struct KernelNote {
  private(set) var address: UInt64 = 0
  /// 0: there is none, or none that the host may go by.
  private(set) var bytes: UInt32 = 0

  init() {
    // Two numbers in hexadecimal.
    let numbers = (readText("/sys/kernel/vmcoreinfo") ?? "").split(separator: " ").map { text in
      UInt64(text.hasPrefix("0x") ? text.dropFirst(2) : text, radix: 16)
    }
    guard numbers.count == 2, let place = numbers[0], let length = numbers[1], !Self.checksFreePages else {
      return
    }
    address = place
    bytes = UInt32(truncatingIfNeeded: length)
  }

  /// A kernel that looks whether its free pages still hold what it left there would find zeros in a clone.
  private static var checksFreePages: Bool {
    (readText("/proc/cmdline") ?? "").split(separator: " ").contains {
      $0.hasPrefix("page_poison") || $0.hasPrefix("debug_pagealloc")
    }
  }
}
