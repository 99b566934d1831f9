import CLibnl

/// An open route netlink socket of one network namespace. Not for two callers at a time: `HostNetwork` has the lock.
final class NetlinkSocket: @unchecked Sendable {
  /// One message of an answer: its fixed header and what follows.
  struct Answer {
    var type: UInt16
    var payload: [UInt8]

    /// The fixed header at its front; nil: it is shorter.
    func header<Header: BitwiseCopyable>(_: Header.Type) -> Header? {
      guard payload.count >= MemoryLayout<Header>.size else { return nil }
      return payload.withUnsafeBytes { $0.loadUnaligned(as: Header.self) }
    }

    func attributes<Header>(after _: Header.Type) -> NetlinkAttributes {
      NetlinkAttributes(payload.dropFirst((MemoryLayout<Header>.size + 3) & ~3))
    }
  }

  private let socket: OpaquePointer

  /// Belongs to the calling thread's namespace, wherever it is used later.
  init() throws(NetlinkFailure) {
    guard let socket = nl_socket_alloc() else { throw NetlinkFailure(code: -CInt(NLE_NOMEM)) }
    let result = nl_connect(socket, NETLINK_ROUTE)
    if result < 0 {
      nl_socket_free(socket)
      throw NetlinkFailure(code: result)
    }
    self.socket = socket
  }

  deinit { nl_socket_free(socket) }

  /// Sends the request and waits until the kernel has done it, or says why not.
  func request(_ message: NetlinkMessage) throws(NetlinkFailure) {
    try check(nl_send_auto(socket, message.pointer))
    try check(nl_wait_for_ack(socket))
  }

  /// The answers to a request of NLM_F_DUMP. Asked again when the kernel says that what it listed has changed meanwhile.
  func dump(_ message: () -> NetlinkMessage) throws(NetlinkFailure) -> [Answer] {
    for _ in 0..<20 {
      do { return try receive(message(), isDump: true) } catch {
        guard error.code == -CInt(NLE_DUMP_INTR) else { throw error }
      }
    }
    throw NetlinkFailure(code: -CInt(NLE_DUMP_INTR))
  }

  /// The one answer to a question.
  func ask(_ message: NetlinkMessage) throws(NetlinkFailure) -> Answer? {
    try receive(message, isDump: false).first
  }

  private func receive(_ message: NetlinkMessage, isDump: Bool) throws(NetlinkFailure) -> [Answer] {
    let answers = Answers()
    let context = Unmanaged.passUnretained(answers).toOpaque()
    nl_socket_modify_cb(
      socket, NL_CB_VALID, NL_CB_CUSTOM,
      { message, context in
        let header = nlmsg_hdr(message)!
        let payload = UnsafeRawBufferPointer(start: nlmsg_data(header), count: Int(nlmsg_datalen(header)))
        Unmanaged<Answers>.fromOpaque(context!).takeUnretainedValue().all.append(
          Answer(type: header.pointee.nlmsg_type, payload: Array(payload)))
        return CInt(NL_OK.rawValue)
      }, context)
    defer { nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_DEFAULT, nil, nil) }
    try check(nl_send_auto(socket, message.pointer))
    try check(nl_recvmsgs_default(socket))
    // What is no list is acknowledged apart.
    if !isDump { try check(nl_wait_for_ack(socket)) }
    return withExtendedLifetime(answers) { answers.all }
  }

  private func check(_ result: CInt) throws(NetlinkFailure) {
    if result < 0 { throw NetlinkFailure(code: result) }
  }

  private final class Answers {
    var all: [Answer] = []
  }
}

/// What libnl answered: a negative number of its own.
struct NetlinkFailure: Error, CustomStringConvertible {
  var code: CInt

  var description: String { String(cString: nl_geterror(code)) }

  /// There is no such interface, entry or namespace.
  var isMissing: Bool {
    [NLE_NODEV, NLE_OBJ_NOTFOUND, NLE_NOADDR].contains { -CInt($0) == code }
  }

  var isExisting: Bool { code == -CInt(NLE_EXIST) }

  func error(_ operation: String) -> NetworkError {
    switch -code {
    case CInt(NLE_PERM), CInt(NLE_NOACCESS):
      NetworkError(.unsupported, operation, cause: "the kernel refuses it", remedy: "Run as root.")
    case CInt(NLE_OPNOTSUPP), CInt(NLE_PROTO_MISMATCH):
      NetworkError(
        .unsupported, operation, cause: "the kernel does not know it (\(self))",
        remedy: "Load the modules bridge, vxlan, veth and tun, or take a kernel that has them.")
    default: NetworkError(.failed, operation, cause: "the kernel answers: \(self)")
    }
  }
}
