import CLinux
import Glibc

/// Taps: network interfaces whose cable ends in a file. A frame written to it arrives from the interface, and the
/// other way round, one a call.
public enum TapDevice {
  /// Opens the tap `name` of the calling thread's network namespace, and makes it if there is none. A tap that is not
  /// persistent goes with its last descriptor. With `virtioHeader` each frame has a `virtio_net_hdr` of 10 bytes in
  /// front. EBUSY: it is open elsewhere.
  public static func open(
    _ name: String, virtioHeader: Bool = false
  ) throws(SystemError) -> OwnedDescriptor {
    let tap = try OwnedDescriptor.open("/dev/net/tun", O_RDWR)
    try systemCall("ioctl(TUNSETIFF)", subject: name) {
      clinux_tap_attach(tap.raw, name, virtioHeader ? 1 : 0)
    }
    return tap
  }

  /// Whether it stays when it is closed.
  public static func setPersistent(_ tap: OwnedDescriptor, _ isPersistent: Bool) throws(SystemError) {
    try systemCall("ioctl(TUNSETPERSIST)") { clinux_tap_set_persistent(tap.raw, isPersistent ? 1 : 0) }
  }

  /// The user who may open it without being root.
  public static func setOwner(_ tap: OwnedDescriptor, _ owner: uid_t) throws(SystemError) {
    try systemCall("ioctl(TUNSETOWNER)") { clinux_tap_set_owner(tap.raw, owner) }
  }

  /// From now on frames come as guests take them: TCP segments of up to 64 KiB, checksums not filled in. The tap must
  /// have been opened with the virtio header.
  public static func acceptSegments(_ tap: OwnedDescriptor) throws(SystemError) {
    try systemCall("ioctl(TUNSETOFFLOAD)") { clinux_tap_accept_segments(tap.raw) }
  }
}
