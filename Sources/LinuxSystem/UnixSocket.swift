import CLinux
import Glibc

/// Unix-domain stream sockets, and descriptors passed over them.
public enum UnixSocket {
  /// A listening socket at `path`, replacing what a dead process left there. `mode` are the permissions of the
  /// file, in force before the first connection can be made.
  public static func listen(
    path: String, mode: mode_t, backlog: CInt = 64
  ) throws(SystemError) -> OwnedDescriptor {
    let socket = try make()
    unlink(path)
    var address = try address(path)
    try systemCall("bind", subject: path) {
      withUnsafeSockaddr(&address) { bind(socket.raw, $0, $1) }
    }
    try systemCall("chmod", subject: path) { chmod(path, mode) }
    try systemCall("listen", subject: path) { Glibc.listen(socket.raw, backlog) }
    return socket
  }

  /// A name that one process of the network namespace can have at a time, as long as it keeps the socket (unix(7),
  /// abstract). EADDRINUSE: another one has it.
  public static func claim(name: String) throws(SystemError) -> OwnedDescriptor {
    let socket = try make()
    var address = try address("\0" + name)
    try systemCall("bind", subject: "@" + name) { withUnsafeSockaddr(&address) { bind(socket.raw, $0, $1) } }
    return socket
  }

  /// ENOENT or ECONNREFUSED: nobody listens.
  public static func connect(path: String) throws(SystemError) -> OwnedDescriptor {
    let socket = try make()
    var address = try address(path)
    try systemCall("connect", subject: path) {
      withUnsafeSockaddr(&address) { Glibc.connect(socket.raw, $0, $1) }
    }
    return socket
  }

  /// Waits for the next connection.
  public static func accept(_ listener: OwnedDescriptor) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(
      taking: try systemCall("accept4") { clinux_accept4_cloexec(listener.raw) })
  }

  /// Who is at the other end, as the kernel knows it.
  public static func peer(_ socket: OwnedDescriptor) throws(SystemError) -> (pid: pid_t, uid: uid_t) {
    var pid: pid_t = 0
    var uid: uid_t = 0
    try systemCall("getsockopt(SO_PEERCRED)") { clinux_peer_credentials(socket.raw, &pid, &uid) }
    return (pid, uid)
  }

  /// Sends the bytes, with the descriptors attached to the first of them. At most 8 descriptors.
  public static func send(
    _ socket: OwnedDescriptor, _ bytes: UnsafeRawBufferPointer, descriptors: [CInt] = []
  ) throws(SystemError) {
    var done = try systemCall("sendmsg") {
      clinux_send_descriptors(
        socket.raw, bytes.baseAddress!, bytes.count, descriptors, descriptors.count)
    }
    while done < bytes.count {
      done += try systemCall("send") {
        Glibc.send(socket.raw, bytes.baseAddress! + done, bytes.count - done, CInt(MSG_NOSIGNAL))
      }
    }
  }

  /// Reads what there is, and the descriptors that came with it. A count of 0: the peer has closed.
  public static func receive(
    _ socket: OwnedDescriptor, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> (count: Int, descriptors: [OwnedDescriptor]) {
    var raw = [CInt](repeating: -1, count: 8)
    var received = 0
    let count = try systemCall("recvmsg") {
      clinux_receive_descriptors(
        socket.raw, buffer.baseAddress!, buffer.count, &raw, raw.count, &received)
    }
    return (count, raw[0..<received].map { OwnedDescriptor(taking: $0) })
  }

  private static func make() throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(
      taking: try systemCall("socket") {
        socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      })
  }

  private static func address(_ path: String) throws(SystemError) -> sockaddr_un {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard path.utf8.count < room else {
      throw SystemError("connect or bind", subject: path, errno: ENAMETOOLONG)
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    return address
  }

  private static func withUnsafeSockaddr<R>(
    _ address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
  ) -> R {
    withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
