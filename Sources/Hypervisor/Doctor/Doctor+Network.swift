import Glibc
import LinuxSystem

/// What the network of VMs needs of the kernel. Both are tried, for a module may be loaded by the trial alone.
extension Doctor {
  /// `device`: /dev/net/tun, or another in its place.
  package static func tun(_ device: String = "/dev/net/tun") -> Finding {
    do throws(SystemError) {
      _ = try OwnedDescriptor.open(device, O_RDWR)
      return Finding(id: "tun", status: .ok, detail: "The kernel has \(device), for network cards.")
    } catch {
      return Finding(
        id: "tun", status: .warning, detail: "\(error): VMs can have no network.",
        remedy: error.errno == EACCES
          ? "Run sfctl doctor as root." : "modprobe tun, or start VMs with --no-network.")
    }
  }
}
