import CTrace
import Glibc

/// A request to the guest's agent, and its answers as they come. The agent hangs up after the last one.
final class Conversation {
  let descriptor: Int32

  /// Nil: the agent is not there.
  init?(_ request: sf_agent_request, _ bytes: [UInt8] = []) {
    descriptor = sf_agent_connect()
    guard descriptor >= 0 else { return nil }
    guard send(request, bytes) else { return nil }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  @discardableResult
  func send(_ request: sf_agent_request, _ bytes: [UInt8] = []) -> Bool {
    var request = request
    request.result_length = UInt32(bytes.count)
    return bytes.withUnsafeBytes { sf_agent_send(descriptor, &request, $0.baseAddress) } == 0
  }

  /// The next answer; waits for it. Nil: the agent hung up. `body` sees the bytes behind it.
  func receive(_ body: (UnsafeRawBufferPointer) -> Void = { _ in }) -> sf_agent_answer? {
    var answer = sf_agent_answer()
    var bytes: UnsafeMutableRawPointer?
    guard sf_agent_receive(descriptor, &answer, &bytes) == 0 else { return nil }
    if let bytes {
      body(UnsafeRawBufferPointer(start: bytes, count: Int(answer.result_length)))
      free(bytes)
    }
    return answer
  }

  /// The answer that is there to be received, which it stays. Nil: there is none.
  func peek() -> sf_agent_answer? {
    var answer = sf_agent_answer()
    let count = recv(descriptor, &answer, MemoryLayout<sf_agent_answer>.size, Int32(MSG_PEEK))
    return count == MemoryLayout<sf_agent_answer>.size ? answer : nil
  }

  /// Whether an answer has come.
  var isReadable: Bool {
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&waiting, 1, 0) == 1
  }

  static func request(_ type: Int, ticket: String = "") -> sf_agent_request {
    var request = sf_agent_request()
    request.type = UInt16(type)
    request.timeout_ms = -1
    withUnsafeMutableBytes(of: &request.ticket) { $0.copyBytes(from: ticket.utf8.prefix(39)) }
    return request
  }
}

func ticketName(_ answer: sf_agent_answer) -> String {
  withUnsafeBytes(of: answer.id) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

func message(_ answer: sf_agent_answer) -> String {
  withUnsafeBytes(of: answer.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}
