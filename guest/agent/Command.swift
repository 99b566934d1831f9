import CGuest
import Glibc
import GuestWire

/// One command of the host: a process with three pipes.
///
/// What its output may carry is limited by the host's credit; what its input may carry, by the agent's. So neither a
/// slow reader here nor one there makes the other hold more than a window of each stream.
final class Command {
  private(set) var pid: Int32 = 0
  private let id: UInt32
  private let loop: EventLoop
  private let send: (GuestMessage) -> Void
  private var isDetached = false

  private var inputPipe: PipeEnd?
  private var pendingInput: [UInt8] = []
  private var inputIsComplete = false
  private var unreportedInput = 0

  private var outputs: [ExecStream: PipeEnd] = [:]
  private var windows: [ExecStream: Int] = [:]
  private var whenDrained: (() -> Void)?

  init(
    _ exec: GuestMessage.Exec, loop: EventLoop, send: @escaping (GuestMessage) -> Void
  ) throws(SystemError) {
    id = exec.id
    self.loop = loop
    self.send = send
    var ends: [Int32] = []
    // posix_spawn duplicates what the child needs; every original closes on exec.
    for _ in 0..<3 {
      var pair: [Int32] = [0, 0]
      let result = cguest_pipe(&pair)
      guard result == 0 else {
        ends.forEach { close($0) }
        throw SystemError("pipe", -result)
      }
      ends += pair
    }
    do {
      pid = try Process.spawn(
        exec.arguments, environment: exec.environment.isEmpty ? nil : exec.environment,
        standard: (ends[0], ends[3], ends[5]))
    } catch {
      ends.forEach { close($0) }
      throw error
    }
    [ends[0], ends[3], ends[5]].forEach { close($0) }
    inputPipe = PipeEnd(ends[1], loop)
    for (stream, fd) in [(ExecStream.output, ends[2]), (.error, ends[4])] {
      outputs[stream] = PipeEnd(fd, loop)
      windows[stream] = GuestMessage.execInitialWindow
    }
  }

  /// Output flows from here on: the host knows the command by now.
  func begin() {
    for stream in outputs.keys { watch(stream) }
  }

  /// False: more than the host had credit for.
  func input(_ bytes: [UInt8]) -> Bool {
    guard inputPipe != nil else { return true }
    guard pendingInput.count + bytes.count <= GuestMessage.execInitialWindow else { return false }
    pendingInput += bytes
    writeInput()
    return true
  }

  func closeInput() {
    inputIsComplete = true
    if pendingInput.isEmpty { dropInput() }
  }

  func signal(_ number: Int32) {
    guard number > 0, number < 65 else { return }
    kill(-pid, number)
  }

  func credit(_ stream: ExecStream, _ bytes: UInt32) {
    guard let window = windows[stream] else { return }
    // More than a window is never outstanding; a sum beyond it is the host's mistake and gains nothing.
    windows[stream] = min(window + Int(bytes), GuestMessage.execInitialWindow)
    if window == 0 { watch(stream) }
    finishIfDrained()
  }

  /// The process has ended: `drained` is called once what it wrote has been sent. A pipe that a process of its own
  /// keeps open is not waited for.
  func finish(status: Int32, drained: @escaping () -> Void) {
    dropInput()
    whenDrained = drained
    finishIfDrained()
  }

  func detach() {
    isDetached = true
    dropInput()
    for stream in outputs.keys {
      windows[stream] = GuestMessage.execInitialWindow
      watch(stream)
    }
  }

  private func writeInput() {
    guard let pipe = inputPipe else { return }
    var written = 0
    var isBroken = false
    pendingInput.withUnsafeBytes { bytes in
      while written < bytes.count {
        switch writeSome(pipe.fd, UnsafeRawBufferPointer(rebasing: bytes[written...])) {
        case .bytes(let count): written += count
        case .wouldBlock, .end: return
        case .failed:
          isBroken = true
          return
        }
      }
    }
    pendingInput.removeFirst(written)
    unreportedInput += written
    let isWorthReporting = unreportedInput >= GuestMessage.execInitialWindow / 4 || pendingInput.isEmpty
    if isWorthReporting && unreportedInput > 0 && !isDetached {
      send(.execCredit(id: id, stream: .input, bytes: UInt32(unreportedInput)))
      unreportedInput = 0
    }
    if isBroken || (pendingInput.isEmpty && inputIsComplete) {
      dropInput()
    } else if pendingInput.isEmpty {
      pipe.unwatch()
    } else {
      pipe.watch(EventLoop.writable) { [unowned self] in writeInput() }
    }
  }

  private func dropInput() {
    inputPipe = nil
    pendingInput = []
  }

  private func watch(_ stream: ExecStream) {
    outputs[stream]?.watch(EventLoop.readable) { [unowned self] in
      _ = readChunk(stream)
      finishIfDrained()
    }
  }

  private enum Progress { case read, idle, windowIsEmpty }

  /// One chunk, so that many commands take turns.
  private func readChunk(_ stream: ExecStream) -> Progress {
    guard let pipe = outputs[stream], let window = windows[stream] else { return .idle }
    guard window > 0 else {
      pipe.unwatch()
      return .windowIsEmpty
    }
    var chunk = [UInt8](repeating: 0, count: min(window, GuestMessage.execChunkLimit))
    switch chunk.withUnsafeMutableBytes({ readSome(pipe.fd, into: $0) }) {
    case .bytes(let count):
      if !isDetached {
        windows[stream] = window - count
        send(.execOutput(id: id, stream: stream, bytes: Array(chunk[..<count])))
      }
      return .read
    case .wouldBlock:
      return .idle
    case .end, .failed:
      outputs[stream] = nil
      return .idle
    }
  }

  private func finishIfDrained() {
    guard let drained = whenDrained else { return }
    for stream in [ExecStream.output, .error] {
      var progress = Progress.read
      while progress == .read { progress = readChunk(stream) }
      if progress == .windowIsEmpty { return }
    }
    whenDrained = nil
    drained()
  }
}

/// A pipe's end, closed with its owner. It is in the loop only while something is awaited: an end whose other end is
/// closed reports that for ever.
private final class PipeEnd {
  let fd: Int32
  private let loop: EventLoop
  private var token: EventLoop.Token?

  init(_ fd: Int32, _ loop: EventLoop) {
    self.fd = fd
    self.loop = loop
    setNonBlocking(fd)
  }

  func watch(_ events: UInt32, _ handler: @escaping () -> Void) {
    guard token == nil else { return }
    token = try? loop.add(fd, events) { _ in handler() }
  }

  func unwatch() {
    if let token { loop.remove(token) }
    token = nil
  }

  deinit {
    unwatch()
    close(fd)
  }
}
