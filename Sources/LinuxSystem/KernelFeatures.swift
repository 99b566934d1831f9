import CLinux
import Glibc

/// What paging needs of the kernel, tried out rather than guessed from a version.
public struct KernelFeature: Sendable {
  public var name: String
  public var isPresent: Bool
  /// One sentence: what is there, or what is missing and what that costs.
  public var sentence: String

  /// All of them, in the order they would be missed.
  public static func probe() -> [KernelFeature] { userfaultfdFeatures() + [pagemapScan()] }

  private static func userfaultfdFeatures() -> [KernelFeature] {
    let path = "/dev/userfaultfd"
    let features: UInt64
    do {
      let device = try OwnedDescriptor.open(path, O_RDWR)
      let made = OwnedDescriptor(
        taking: try systemCall("USERFAULTFD_IOC_NEW", subject: path) { clinux_uffd_new(device.raw) })
      var found: UInt64 = 0
      try systemCall("UFFDIO_API") { clinux_uffd_api(made.raw, &found) }
      features = found
    } catch {
      return [
        KernelFeature(
          name: "userfaultfd", isPresent: false,
          sentence: "\(error): no VM can be forked without it (Linux 6.1 or later, as root).")
      ]
    }
    let needed: [(String, UInt64, String)] = [
      ("userfaultfd missing-shmem", CLINUX_UFFD_MISSING_SHMEM, "clones can not fetch pages on access"),
      (
        "userfaultfd write-protect shmem",
        CLINUX_UFFD_PAGEFAULT_FLAG_WP | CLINUX_UFFD_WP_HUGETLBFS_SHMEM,
        "a running parent can not be frozen (Linux 5.19 or later)"
      ),
    ]
    return needed.map { name, bits, loss in
      let present = features & bits == bits
      return KernelFeature(
        name: name, isPresent: present,
        sentence: present ? "The kernel has \(name)." : "The kernel lacks \(name): \(loss).")
    }
  }

  private static func pagemapScan() -> KernelFeature {
    do {
      let start = UInt64(UInt(bitPattern: #dsohandle)) & ~4095
      _ = try ProcessMemory(pid: getpid()).privateRuns(in: start..<start + 4096)
      return KernelFeature(name: "PAGEMAP_SCAN", isPresent: true, sentence: "The kernel has PAGEMAP_SCAN.")
    } catch {
      return KernelFeature(
        name: "PAGEMAP_SCAN", isPresent: false,
        sentence: "\(error): a clone can not be forked again (Linux 6.7 or later); a parent can.")
    }
  }
}
