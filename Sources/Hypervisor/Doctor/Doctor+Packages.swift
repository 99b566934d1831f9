import CLibvirt
import Glibc

/// What Debian's packages bring.
extension Doctor {
  static func qemu() -> Finding {
    let path = "/usr/bin/qemu-system-x86_64"
    guard access(path, X_OK) == 0, let version = firstLine(of: "\(path) --version") else {
      return Finding(
        id: "qemu", status: .missing, detail: "\(path) is missing, or does not start.",
        remedy: "apt-get install qemu-system-x86")
    }
    guard firstLine(of: "\(path) -machine help | grep -w \(DomainDefinition.machineType)") != nil else {
      return Finding(
        id: "qemu", status: .missing, detail: "\(version) has no machine \(DomainDefinition.machineType).",
        remedy: "Install QEMU 7.2 or later.")
    }
    return Finding(id: "qemu", status: .ok, detail: "\(version).")
  }

  static func libvirt() -> Finding {
    var number: UInt = 0
    virGetVersion(&number, nil, nil)
    let version = "libvirt \(number / 1_000_000).\(number / 1000 % 1000).\(number % 1000)"
    let drivers = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"].map {
      "\($0)/libvirt/connection-driver/libvirt_driver_qemu.so"
    }
    return drivers.contains { access($0, R_OK) == 0 }
      ? Finding(id: "libvirt", status: .ok, detail: "\(version), with its QEMU driver.")
      : Finding(
        id: "libvirt", status: .missing, detail: "\(version) is there, but not its QEMU driver.",
        remedy: "apt-get install libvirt-daemon-driver-qemu")
  }

  static func unprivilegedUser() -> Finding {
    let user = EmbeddedRoot.user
    return getpwnam(user) != nil
      ? Finding(id: "user", status: .ok, detail: "QEMU runs as the user \(user).")
      : Finding(
        id: "user", status: .missing, detail: "There is no user \(user), as which QEMU runs.",
        remedy: "apt-get install libvirt-daemon-system")
  }

  /// What disks of VMs need beside QEMU itself.
  static func diskPrograms() -> [Finding] {
    [
      program(
        "qemu-storage-daemon", at: "/usr/bin/qemu-storage-daemon", package: "qemu-system-common",
        without: "disks of VMs can not begin as a file, and VMs that have disks not be forked"),
      program("qemu-img", at: "/usr/bin/qemu-img", package: "qemu-utils", without: "VMs can have no disks"),
      program(
        "nbdkit", at: "/usr/bin/nbdkit", package: "nbdkit",
        without: "VMs that have disks can not be forked onto other hosts"),
    ]
  }

  /// A program of a Debian package, without which something can not be done.
  package static func program(
    _ id: String, at path: String, package: String, without loss: String
  ) -> Finding {
    guard let version = firstLine(of: "\(path) --version") else {
      return Finding(
        id: id, status: .warning, detail: "\(path) is missing, or does not start: \(loss).",
        remedy: "apt-get install \(package)")
    }
    return Finding(id: id, status: .ok, detail: "\(version).")
  }

  /// The first line that a shell command of ours prints; nil if it prints none.
  private static func firstLine(of command: String) -> String? {
    guard let pipe = popen("\(command) 2>/dev/null", "r") else { return nil }
    defer { pclose(pipe) }
    var buffer = [CChar](repeating: 0, count: 512)
    guard fgets(&buffer, CInt(buffer.count), pipe) != nil else { return nil }
    let line = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    return String(line.prefix { $0 != "\n" })
  }
}
