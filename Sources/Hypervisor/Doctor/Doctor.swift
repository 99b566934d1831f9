import Glibc
import LinuxSystem

/// What this machine has, and lacks, for forking VMs. Needs no daemon, and changes nothing.
public struct Doctor {
  private let memoryDirectory: String

  /// `memoryDirectory`: where sfd has, or will have, its tmpfs of guest memory.
  public init(memoryDirectory: String) { self.memoryDirectory = memoryDirectory }

  /// Every probe's finding, what is needed first at first.
  public func examine() -> [Finding] {
    [Self.privilege(), Self.qemu(), Self.libvirt(), Self.unprivilegedUser(), Self.accelerator()]
      + Self.diskPrograms() + [Self.tun()] + Self.kernelFeatures() + [
        memoryFileSystem(), Self.hugePages(), Self.memory(), Self.processorLimit(),
      ]
  }

  private static func privilege() -> Finding {
    geteuid() == 0
      ? Finding(id: "root", status: .ok, detail: "This is root.")
      : Finding(
        id: "root", status: .missing, detail: "This is not root: some of the findings below are of no use.",
        remedy: "Run sfctl doctor as root, which sfd needs too.")
  }

  private static func accelerator() -> Finding {
    let choice = AcceleratorProbe().choose()
    return choice.accelerator == .kvm
      ? Finding(id: "accelerator", status: .ok, detail: "\(choice.reason).")
      : Finding(
        id: "accelerator", status: .warning,
        detail: "\(choice.reason). Guests run 10 to 20 times slower than under KVM.",
        remedy:
          "Turn on virtualization in the firmware, or nested virtualization on the host of this machine.")
  }

  private static func kernelFeatures() -> [Finding] {
    KernelFeature.probe().map { feature in
      Finding(
        id: feature.name.lowercased().split(separator: " ").joined(separator: "-"),
        status: feature.isPresent ? .ok : .missing, detail: feature.sentence,
        remedy: feature.isPresent ? "" : "Run a kernel of 6.7 or later, with CONFIG_USERFAULTFD, as root.")
    }
  }

  private func memoryFileSystem() -> Finding {
    Finding(
      id: "guest-memory", status: .ok,
      detail: GuestMemoryMount.isMounted(memoryDirectory)
        ? "Guest memory is on the tmpfs at \(memoryDirectory)."
        : "sfd will mount a tmpfs for guest memory at \(memoryDirectory).")
  }

  /// `deny` overrules the mount option by which sfd asks for huge pages; any other word lets it be.
  private static func hugePages() -> Finding {
    let words = ProcessFiles.firstLine("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if words.isEmpty || words.contains("[deny]") {
      return Finding(
        id: "huge-pages", status: .warning,
        detail:
          "The kernel gives shared memory no huge pages: write-protecting a parent takes 6 times as long.",
        remedy: "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled")
    }
    return Finding(id: "huge-pages", status: .ok, detail: "Shared memory may have huge pages.")
  }

  private static func memory() -> Finding {
    let line = ProcessFiles.text("/proc/meminfo").split(separator: "\n").first {
      $0.hasPrefix("MemAvailable:")
    }
    let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0
    let wantedMebibytes: UInt64 = 2048
    let mebibytes = kibibytes / 1024
    return mebibytes >= wantedMebibytes
      ? Finding(id: "memory", status: .ok, detail: "\(mebibytes) MiB of memory are available.")
      : Finding(
        id: "memory", status: .warning, detail: "Only \(mebibytes) MiB of memory are available.",
        remedy:
          "A parent of 256 MiB and eight clones want \(wantedMebibytes) MiB; end something, or fork fewer.")
  }

  private static func processorLimit() -> Finding {
    guard let obstacle = CPULimit.obstacle() else {
      return Finding(id: "cpu-limit", status: .ok, detail: "Virtual CPUs can be limited (--cpu-limit).")
    }
    return Finding(
      id: "cpu-limit", status: .warning, detail: "vm start --cpu-limit fails: \(obstacle).",
      remedy: "Mount cgroup2 on /sys/fs/cgroup, with the CPU controller, and run sfd as root.")
  }
}
