import CGuest
import Glibc
import GuestWire

/// The virtio-serial port to sfd: frames in, frames out, nothing out while the VM is being forked.
///
/// Edge-triggered: a port whose host side is closed is readable for ever (read returns 0) and reports a hang-up that
/// a level-triggered wait would spin on. The kernel signals an edge when the host side opens again.
final class HostPort {
  static let name = "org.snowfork.agent"

  /// The epoch of every frame that is sent.
  var epoch: UInt64 = 0
  var onFrame: (Frame) -> Void = { _ in }

  private let fd: Int32
  private var decoder = FrameDecoder()
  private var output: [UInt8] = []
  private var outputHead = 0
  private var held: [(message: GuestMessage, request: UInt32)] = []
  private var isHolding = false
  private var complained = false
  private var input = [UInt8](repeating: 0, count: 64 << 10)

  init(path: String, loop: EventLoop) throws(SystemError) {
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError("open \(path)") }
    _ = try loop.add(
      fd, EventLoop.readable | EventLoop.writable | EventLoop.edgeTriggered
    ) { [unowned self] events in
      let hungUp = events & EPOLLHUP.rawValue != 0
      // A new host's data can be there before the kernel has noted that the port is open again: the answer to it stays,
      // what was to be sent before goes.
      if hungUp { dropOutput() }
      flush()
      receive()
      if hungUp { forgetHalfFrame() }
    }
  }

  /// The device node of the port called `name`. There is no udev in a small guest to make links.
  static func find() -> String? {
    let directory = "/sys/class/virtio-ports"
    for port in namesIn(directory) where readText("\(directory)/\(port)/name") == name {
      return "/dev/\(port)"
    }
    return nil
  }

  func send(_ message: GuestMessage, request: UInt32 = 0) {
    if isHolding {
      held.append((message, request))
    } else {
      enqueue(message, request)
      flush()
    }
  }

  /// What is sent from here on is kept back, so that nothing is in flight at the fork.
  func hold() { isHolding = true }

  /// The parent goes on: what was kept back is sent.
  func release() {
    isHolding = false
    let messages = held
    held = []
    for (message, request) in messages { enqueue(message, request) }
    flush()
  }

  /// A clone goes on: what was kept back was its parent's.
  func releaseDroppingHeld() {
    held = []
    output = []
    outputHead = 0
    isHolding = false
  }

  private func enqueue(_ message: GuestMessage, _ request: UInt32) {
    do {
      let frame = try Frame(message, epoch: epoch, request: request)
      output += frame.encoded()
    } catch {
      log("a message was not sent: \(error)")
    }
  }

  private func flush() {
    while outputHead < output.count {
      let sent = output.withUnsafeBytes {
        writeSome(fd, UnsafeRawBufferPointer(rebasing: $0[outputHead...]))
      }
      guard case .bytes(let count) = sent, count > 0 else { break }
      outputHead += count
    }
    if outputHead == output.count {
      output.removeAll(keepingCapacity: output.capacity <= 1 << 20)
      outputHead = 0
    }
  }

  private func receive() {
    while true {
      guard case .bytes(let count) = input.withUnsafeMutableBytes({ readSome(fd, into: $0) }) else {
        return
      }
      input.withUnsafeBytes { decoder.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
      decode()
    }
  }

  private func decode() {
    while true {
      switch decoder.next() {
      case .needMore: return
      case .frame(let frame): onFrame(frame)
      case .violation(let violation):
        if !complained { log("the host broke the protocol: \(violation)") }
        complained = true
      }
    }
  }

  /// The host's side closed: what is half sent has no other half.
  private func dropOutput() {
    output = []
    outputHead = 0
  }

  /// Nor has what is half received.
  private func forgetHalfFrame() {
    decoder.reset()
    complained = false
  }
}
