import Foundation
import Glibc
import GuestWire

/// A real QEMU with the `mini` image and no sfd: the test is the host's side of the agent's port.
///
/// A clone here is QEMU's plain migration through a file, RAM and all: what matters to the agent is the same.
final class AgentMachine {
  static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path

  enum Failure: Error { case timedOut(String), imageNotBuilt(Int32), noSocket(String), closed }

  private let directory: String
  private let qemu = Foundation.Process()
  private var port: Int32 = -1
  private var monitor: Int32 = -1
  private var decoder = FrameDecoder()
  private(set) var violations: [FrameDecoder.Violation] = []
  var epoch: UInt64 = 7

  /// Builds the image first if it is not up to date, which takes no time otherwise.
  static func image() throws -> String {
    let state = ProcessInfo.processInfo.environment["SNOWFORK_STATE"] ?? "/var/lib/snowfork"
    let image = "\(state)/images/mini"
    let build = Foundation.Process()
    build.executableURL = URL(fileURLWithPath: "/bin/sh")
    build.arguments = ["-c", "guest/build && images/build mini \"$0\"", image]
    build.currentDirectoryURL = URL(fileURLWithPath: repository)
    try build.run()
    build.waitUntilExit()
    guard build.terminationStatus == 0 else { throw Failure.imageNotBuilt(build.terminationStatus) }
    return image
  }

  init(image: String, generationID: Bool = true, incoming: String? = nil) throws {
    directory = "/tmp/sf-agent-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    let description = try JSONSerialization.jsonObject(
      with: Data(contentsOf: URL(fileURLWithPath: "\(image)/image.json")))
    let commandLine = (description as? [String: Any])?["command_line"] as? String ?? ""
    var arguments = [
      "-accel", "tcg", "-machine", "pc-i440fx-7.2,usb=off", "-cpu", "Nehalem,+rdrand", "-m", "160",
      "-nodefaults",
      "-nographic", "-no-user-config", "-no-reboot", "-kernel", "\(image)/vmlinuz", "-initrd",
      "\(image)/initrd",
      "-append", commandLine, "-device", "virtio-serial-pci",
      "-chardev", "socket,id=agent,path=\(directory)/agent,server=on,wait=off",
      "-device", "virtserialport,chardev=agent,name=org.snowfork.agent",
      "-monitor", "unix:\(directory)/monitor,server=on,wait=off", "-serial", "file:\(directory)/console",
    ]
    if generationID { arguments += ["-device", "vmgenid,guid=auto"] }
    if let incoming { arguments += ["-incoming", "exec:cat \(incoming)"] }
    qemu.executableURL = URL(fileURLWithPath: "/usr/bin/qemu-system-x86_64")
    qemu.arguments = arguments
    qemu.standardInput = FileHandle.nullDevice
    try qemu.run()
    port = try Self.connect("\(directory)/agent")
    monitor = try Self.connect("\(directory)/monitor")
  }

  deinit {
    if port >= 0 { close(port) }
    if monitor >= 0 { close(monitor) }
    if qemu.isRunning { kill(qemu.processIdentifier, SIGKILL) }
    qemu.waitUntilExit()
    try? FileManager.default.removeItem(atPath: directory)
  }

  // MARK: - The port

  func send(_ message: GuestMessage, request: UInt32 = 0, epoch: UInt64? = nil) throws {
    try sendBytes(try Frame(message, epoch: epoch ?? self.epoch, request: request).encoded())
  }

  func sendBytes(_ bytes: [UInt8]) throws {
    var offset = 0
    while offset < bytes.count {
      let count = bytes[offset...].withUnsafeBytes {
        Glibc.send(port, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { throw Failure.closed }
      offset += count
    }
  }

  /// The next message; nil if none comes within the time.
  func next(seconds: Double = 30) throws -> (message: GuestMessage, request: UInt32, epoch: UInt64)? {
    let deadline = Date(timeIntervalSinceNow: seconds)
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      switch decoder.next() {
      case .frame(let frame):
        return (try GuestMessage(frame, receiver: .host), frame.request, frame.epoch)
      case .violation(let violation):
        violations.append(violation)
      case .needMore:
        let remaining = deadline.timeIntervalSinceNow
        var waiting = pollfd(fd: port, events: Int16(POLLIN), revents: 0)
        guard remaining > 0, poll(&waiting, 1, Int32(remaining * 1000) + 1) == 1 else { return nil }
        let count = read(port, &bytes, bytes.count)
        guard count > 0 else { throw Failure.closed }
        decoder.append(Array(bytes[..<count]))
      }
    }
  }

  /// The first message that is wanted; others on the way are dropped.
  func wait<Wanted>(_ what: String, _ wanted: (GuestMessage) -> Wanted?) throws -> (
    value: Wanted, request: UInt32
  ) {
    while let (message, request, _) = try next() {
      if let value = wanted(message) { return (value, request) }
    }
    throw Failure.timedOut(what)
  }

  func hello() throws -> GuestMessage.Welcome {
    try send(.hello(.init(session: 1, epoch: epoch, hostTimeNanoseconds: 0)), request: 1)
    return try wait("welcome") { if case .welcome(let welcome) = $0 { welcome } else { nil } }.value
  }

  /// This sfd ends and another begins.
  func reconnect() throws {
    close(port)
    usleep(300_000)  // a host that is back before the guest has run again was never away
    port = try Self.connect("\(directory)/agent")
    decoder.reset()
  }

  /// Runs a command to its end, giving credit for all that it prints.
  func run(_ arguments: [String], input: [UInt8] = []) throws -> (status: Int32, output: String) {
    commandID += 1
    let id = commandID
    try send(.exec(.init(id: id, arguments: arguments)), request: id)
    var window = GuestMessage.execInitialWindow
    var unsent = input[...]
    var output: [UInt8] = []
    func feed() throws {
      while window > 0, !unsent.isEmpty {
        let chunk = unsent.prefix(min(window, GuestMessage.execChunkLimit))
        try send(.execInput(id: id, bytes: Array(chunk)))
        unsent = unsent.dropFirst(chunk.count)
        window -= chunk.count
        if unsent.isEmpty { try send(.execInputClosed(id: id)) }
      }
    }
    if input.isEmpty { try send(.execInputClosed(id: id)) } else { try feed() }
    while let (message, _, _) = try next() {
      switch message {
      case .execOutput(id, let stream, let bytes):
        output += bytes
        try send(.execCredit(id: id, stream: stream, bytes: UInt32(bytes.count)))
      case .execCredit(id, .input, let bytes):
        window += Int(bytes)
        try feed()
      case .execExited(id, let status):
        return (status, String(decoding: output, as: UTF8.self))
      case .failed(let errno, _):
        return (-errno, "")
      default: break
      }
    }
    throw Failure.timedOut(arguments.joined(separator: " "))
  }

  private var commandID: UInt32 = 0

  // MARK: - Forks

  func prepare() throws {
    try send(.prepare(dropsCache: false), request: 2)
    let reason = try wait("prepared") {
      if case .prepared(let reason, _, _) = $0 { reason ?? "" } else { nil }
    }
    .value
    guard reason.isEmpty else { throw Failure.timedOut("prepared: \(reason)") }
  }

  /// Writes the stopped machine into a file, as it is after `prepare`, and lets it go on.
  func snapshot() throws -> String {
    let file = "\(directory)/state"
    try command("migrate_set_parameter max-bandwidth 100g")
    try command("migrate \"exec:cat > \(file)\"")
    while !(try command("info migrate")).contains("completed") { usleep(20_000) }
    try command("cont")
    try send(.resume(epoch: epoch))
    return file
  }

  func take(_ identity: GuestMessage.Identity) throws -> GuestMessage.IdentityTaken {
    epoch = identity.epoch
    try send(.identity(identity), request: 3)
    return try wait("identityTaken") { if case .identityTaken(let taken) = $0 { taken } else { nil } }.value
  }

  /// One command of QEMU's monitor for humans; what it prints.
  @discardableResult
  private func command(_ text: String) throws -> String {
    let line = Array("\(text)\n".utf8)
    guard write(monitor, line, line.count) == line.count else { throw Failure.closed }
    var answer = ""
    var bytes = [UInt8](repeating: 0, count: 1 << 14)
    // Its greeting and its echo end in no prompt of their own line.
    while !answer.contains("\r\n(qemu) ") {
      let count = read(monitor, &bytes, bytes.count)
      guard count > 0 else { throw Failure.closed }
      answer += String(decoding: bytes[..<count], as: UTF8.self)
    }
    return answer
  }

  private static func connect(_ path: String) throws -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    for _ in 0..<500 {
      let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      let result = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          Glibc.connect(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      if result == 0 { return fd }
      close(fd)
      usleep(20_000)
    }
    throw Failure.noSocket(path)
  }
}
