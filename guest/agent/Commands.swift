import Glibc
import GuestWire

/// The commands that the host runs in this guest, by the host's number for each.
final class Commands {
  private let loop: EventLoop
  private let port: HostPort
  private var running: [UInt32: Command] = [:]
  /// Commands of the parent that a clone inherited: they live on, and their output goes nowhere.
  private var detached: [Command] = []

  init(loop: EventLoop, port: HostPort) {
    self.loop = loop
    self.port = port
  }

  func start(_ exec: GuestMessage.Exec, request: UInt32) {
    guard !exec.arguments.isEmpty, running[exec.id] == nil else {
      port.send(.failed(errno: EINVAL, message: "no command, or its number is in use"), request: request)
      return
    }
    do {
      let command = try Command(exec, loop: loop) { [unowned self] message in port.send(message) }
      running[exec.id] = command
      port.send(.execStarted(id: exec.id, pid: command.pid), request: request)
      command.begin()
    } catch {
      port.send(.failed(errno: error.code, message: "\(error)"), request: request)
    }
  }

  func input(_ id: UInt32, _ bytes: [UInt8]) {
    if running[id]?.input(bytes) == false {
      log("command \(id): the host sent more input than it had credit for")
      running[id]?.signal(SIGKILL)
    }
  }

  func closeInput(_ id: UInt32) { running[id]?.closeInput() }

  func signal(_ id: UInt32, _ number: Int32) { running[id]?.signal(number) }

  func credit(_ id: UInt32, _ stream: ExecStream, _ bytes: UInt32) { running[id]?.credit(stream, bytes) }

  func exited(pid: Int32, status: Int32) {
    detached.removeAll { $0.pid == pid }
    guard let (id, command) = running.first(where: { $0.value.pid == pid }) else { return }
    command.finish(status: status) { [unowned self] in
      running[id] = nil
      port.send(.execExited(id: id, status: status))
    }
  }

  /// The host that started the commands does not know this VM.
  func detachAll() {
    for command in running.values {
      command.detach()
      detached.append(command)
    }
    running = [:]
  }
}
