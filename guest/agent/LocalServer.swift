import CGuest
import Glibc
import GuestWire

/// The socket on which the guest's processes ask; its protocol is agent_protocol.h.
final class LocalServer {
  /// More processes than this at a time are refused, so that none can take the agent's memory.
  private static let clientLimit = 1024

  var onRequest: (_ client: LocalClient, _ request: sf_agent_request, _ result: [UInt8]) -> Void = {
    _, _, _ in
  }
  var onClose: (_ client: LocalClient) -> Void = { _ in }

  private let loop: EventLoop
  private var clients: [ObjectIdentifier: LocalClient] = [:]

  init(path: String, loop: EventLoop) throws(SystemError) {
    self.loop = loop
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError("socket") }
    unlink(path)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard bound == 0 else { throw SystemError("bind \(path)") }
    chmod(path, 0o666)
    guard listen(fd, 128) == 0 else { throw SystemError("listen \(path)") }
    _ = try loop.add(fd, EventLoop.readable) { [unowned self] _ in accept(from: fd) }
  }

  private func accept(from listener: Int32) {
    while true {
      let fd = cguest_accept(listener)
      guard fd >= 0 else { return }
      guard clients.count < Self.clientLimit, let client = LocalClient(fd, server: self, loop: loop) else {
        close(fd)
        continue
      }
      clients[ObjectIdentifier(client)] = client
    }
  }

  /// The VM is a clone now: what was given to its processes before is the parent's.
  func forgetGifts() {
    for client in clients.values { client.onUntaken = nil }
  }

  fileprivate func closed(_ client: LocalClient) {
    clients[ObjectIdentifier(client)] = nil
    onClose(client)
  }
}

/// One process's connection: one request, its answers, and the end. Of a conversation more than one.
final class LocalClient {
  let pid: Int32
  private let fd: Int32
  private let loop: EventLoop
  private unowned let server: LocalServer
  private var token: EventLoop.Token?
  private var input: [UInt8] = []
  private var output: [UInt8] = []
  private var hasAsked = false
  /// Set by whoever serves a conversation: takes what is asked after the first.
  var onMore: ((_ request: sf_agent_request, _ bytes: [UInt8]) -> Void)?
  /// All that was sent is with the process.
  var onDrained: () -> Void = {}
  private var closesWhenSent = false
  /// Set by `give`: the process has gone and has not read what was given to it.
  fileprivate var onUntaken: (() -> Void)?

  fileprivate init?(_ fd: Int32, server: LocalServer, loop: EventLoop) {
    self.fd = fd
    self.server = server
    self.loop = loop
    pid = cguest_peer_pid(fd)
    token = try? loop.add(fd, EventLoop.readable) { [unowned self] events in
      // The server lets go of a client that ends, be it in the first of the two.
      let client = self
      if events & EventLoop.writable != 0 { client.flush() }
      if events & ~EventLoop.writable != 0 { client.receive() }
    }
    if token == nil { return nil }
  }

  /// An answer on the way to the last.
  func send(_ answer: sf_agent_answer, result: [UInt8] = []) {
    guard token != nil else { return }
    var answer = answer
    answer.magic = UInt32(SF_AGENT_MAGIC)
    answer.version = UInt16(SF_AGENT_VERSION)
    answer.result_length = UInt32(result.count)
    withUnsafeBytes(of: answer) { output += $0 }
    output += result
    flush()
  }

  /// The last answer.
  func finish(_ answer: sf_agent_answer) {
    var answer = answer
    answer.type = UInt16(SF_AGENT_ANSWER)
    closesWhenSent = true
    send(answer)
  }

  /// The last answer, with something in it that must not get lost: `onUntaken` is called if the process ends before it
  /// has read the answer. It is the one that hangs up: the kernel then says whether anything was left unread.
  func give(_ answer: sf_agent_answer, onUntaken: @escaping () -> Void) {
    var answer = answer
    answer.type = UInt16(SF_AGENT_ANSWER)
    self.onUntaken = onUntaken
    send(answer)
  }

  func fail(_ code: Int32, _ message: String) {
    var answer = sf_agent_answer()
    answer.error = -code
    copyText(message, to: &answer.message)
    finish(answer)
  }

  private func receive() {
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while token != nil {
      switch chunk.withUnsafeMutableBytes({ readSome(fd, into: $0) }) {
      case .bytes(let count):
        input += chunk[..<count]
        takeRequests()
      case .wouldBlock: return
      case .end: return end()
      case .failed: return breakOff()
      }
    }
  }

  private func takeRequests() {
    let size = MemoryLayout<sf_agent_request>.size
    while token != nil, !input.isEmpty {
      guard !hasAsked || onMore != nil else { return end() }  // a second request
      guard input.count >= size else { return }
      let request = input.withUnsafeBytes { $0.loadUnaligned(as: sf_agent_request.self) }
      let limit = hasAsked ? SF_AGENT_RUN_WINDOW : SF_AGENT_RESULT_MAX
      guard request.magic == UInt32(SF_AGENT_MAGIC), request.version == UInt16(SF_AGENT_VERSION),
        request.result_length <= UInt32(limit)
      else { return end() }
      let total = size + Int(request.result_length)
      guard input.count >= total else { return }
      let result = Array(input[size..<total])
      input.removeFirst(total)
      if let onMore {
        onMore(request, result)
      } else {
        hasAsked = true
        server.onRequest(self, request, result)
      }
    }
  }

  private func flush() {
    guard let token else { return }
    while !output.isEmpty {
      switch output.withUnsafeBytes({ writeSome(fd, $0) }) {
      case .bytes(let count): output.removeFirst(count)
      case .wouldBlock: return loop.modify(token, EventLoop.readable | EventLoop.writable)
      case .end, .failed: return breakOff()
      }
    }
    loop.modify(token, EventLoop.readable)
    if closesWhenSent { end() } else { onDrained() }
  }

  /// Its process has gone without having read all.
  private func breakOff() {
    let untaken = token == nil ? nil : onUntaken
    end()
    untaken?()
  }

  /// Hangs up.
  func end() {
    guard let token else { return }
    loop.remove(token)
    self.token = nil
    close(fd)
    server.closed(self)
  }
}

/// Text out of a fixed C array, up to its NUL or end.
func text<Array>(_ array: Array) -> String {
  withUnsafeBytes(of: array) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// Text into a fixed C array, cut to leave room for the NUL.
func copyText<Array>(_ text: String, to array: inout Array) {
  withUnsafeMutableBytes(of: &array) { bytes in
    let cut = text.utf8.prefix(bytes.count - 1)
    bytes.copyBytes(from: cut)
    bytes[cut.count] = 0
  }
}

/// A host's name as a process sends it: nil for what no host can be called, which the frames would not carry.
func hostName(_ bytes: [UInt8]) -> String? {
  let name = String(decoding: bytes, as: UTF8.self)
  return !bytes.isEmpty && bytes.count <= GuestMessage.nameLimit && name.utf8.elementsEqual(bytes)
    ? name : nil
}
