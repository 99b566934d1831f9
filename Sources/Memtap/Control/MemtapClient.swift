import Glibc
import LinuxSystem
import Synchronization

/// The daemon's side of memtap.sock. Any thread; calls at the same time use connections of their own.
public final class MemtapClient: MemtapControl, Sendable {
  private let socketPath: String
  /// Connections between calls.
  private let idle = Mutex<[OwnedDescriptor]>([])

  /// Does not connect yet: the first call does.
  public init(socketPath: String) { self.socketPath = socketPath }

  public func status() throws(MemtapError) -> MemtapStatus {
    guard case let .status(status) = try call(.status, "status", "memtap").answer else {
      throw nonsense("status")
    }
    return status
  }

  public func expect(vm: String, token: String, ramBytes: UInt64) throws(MemtapError) {
    try call(.expect(vm: vm, token: token, ramBytes: ramBytes), "expect", vm)
  }
  public func waitForShim(vm: String, timeoutMilliseconds: Int) throws(MemtapError) {
    try call(.waitForShim(vm: vm, timeoutMilliseconds: timeoutMilliseconds), "waitForShim", vm)
  }
  public func rename(vm: String, to name: String) throws(MemtapError) {
    try call(.rename(vm: vm, to: name), "rename", vm)
  }
  public func forget(vm: String) throws(MemtapError) { try call(.forget(vm: vm), "forget", vm) }
  public func arm(vm: String) throws(MemtapError) { try call(.arm(vm: vm), "arm", vm) }
  public func disarm(vm: String) throws(MemtapError) { try call(.disarm(vm: vm), "disarm", vm) }

  public func commit(vm: String, snapshot: String) throws(MemtapError) {
    try call(.commit(vm: vm, snapshot: snapshot), "commit", vm)
  }
  public func survey(snapshot: String, kernel: SurveyedKernel?) throws(MemtapError) -> SnapshotLayout {
    let (answer, runs) = try call(.survey(snapshot: snapshot, kernel: kernel), "survey", snapshot)
    guard case .layout(var layout) = answer else { throw nonsense("survey") }
    layout.existing = runs
    return layout
  }

  public func activate(vm: String, snapshot: String, avoids: Bool = true) throws(MemtapError) {
    try call(.activate(vm: vm, snapshot: snapshot, avoids: avoids), "activate", vm)
  }
  public func drop(snapshot: String) throws(MemtapError) {
    try call(.drop(snapshot: snapshot), "drop", snapshot)
  }
  public func isWhole(snapshot: String) throws(MemtapError) -> Bool {
    guard case let .whole(isWhole) = try call(.isWhole(snapshot: snapshot), "isWhole", snapshot).answer else {
      throw nonsense("isWhole")
    }
    return isWhole
  }
  public func complete(snapshot: String) throws(MemtapError) {
    try call(.complete(snapshot: snapshot), "complete", snapshot)
  }
  public func statistics() throws(MemtapError) -> MemtapStatistics {
    guard case let .statistics(statistics) = try call(.statistics, "statistics", "memtap").answer else {
      throw nonsense("statistics")
    }
    return statistics
  }

  public func serve(
    snapshot: String, address: String, transport: PageTransport
  ) throws(MemtapError) -> PageOrigin {
    let request = ControlRequest.serve(snapshot: snapshot, address: address, transport: transport)
    guard case let .origin(origin) = try call(request, "serve", snapshot).answer else {
      throw nonsense("serve")
    }
    return origin
  }
  public func attach(_ snapshot: RemoteSnapshot) throws(MemtapError) {
    var header = snapshot
    header.existing = []
    try call(.attach(header), "attach", snapshot.id, runs: snapshot.existing)
  }
  public func push(snapshot: String, _ isOn: Bool) throws(MemtapError) {
    try call(.push(snapshot: snapshot, isOn: isOn), "push", snapshot)
  }
  public func originGone(snapshot: String, reason: String) throws(MemtapError) {
    try call(.originGone(snapshot: snapshot, reason: reason), "originGone", snapshot)
  }
  public func history(snapshot: String) throws(MemtapError) -> SnapshotHistory {
    guard case let .history(history) = try call(.history(snapshot: snapshot), "history", snapshot).answer
    else { throw nonsense("history") }
    return history
  }

  public func checkpoint(_ order: CheckpointOrder) throws(MemtapError) -> CheckpointPages {
    guard case let .checkpoint(pages) = try call(.checkpoint(order), "checkpoint", order.snapshot).answer
    else { throw nonsense("checkpoint") }
    return pages
  }
  public func receive(standby: String, parent: String, path: String) throws(MemtapError) -> StandbyStatus {
    let request = ControlRequest.receive(standby: standby, parent: parent, path: path)
    guard case let .standbys(all) = try call(request, "receive", standby).answer, let status = all.first
    else { throw nonsense("receive") }
    return status
  }
  public func written(_ snapshot: String, since base: String) throws(MemtapError) -> SnapshotLayout {
    let (answer, runs) = try call(.written(snapshot: snapshot, since: base), "written", snapshot)
    guard case .layout(var layout) = answer else { throw nonsense("written") }
    layout.existing = runs
    return layout
  }
  public func standbys() throws(MemtapError) -> [StandbyStatus] {
    guard case let .standbys(all) = try call(.standbys, "standbys", "memtap").answer else {
      throw nonsense("standbys")
    }
    return all
  }

  /// What the pager tells unasked, from a connection and a thread of its own. First what stands already (VMs to be
  /// ended, snapshots lost, VMs gone and not forgotten), so that an event may come twice. The stream ends when the
  /// pager does, at once if there is none.
  public var events: AsyncStream<MemtapEvent> {
    AsyncStream { continuation in
      do {
        let socket = try UnixSocket.connect(path: socketPath)
        try ControlFrame.write(ControlFrame.encode(ControlRequest.events), to: socket)
        // Wakes the thread below, which then ends the stream.
        continuation.onTermination = { _ in shutdown(socket.raw, CInt(SHUT_RDWR)) }
        try NamedThread("memtap-events") {
          while let frame = try? ControlFrame.read(socket), let event = try? frame.decode(MemtapEvent.self) {
            continuation.yield(event)
          }
          continuation.finish()
        }.detach()
      } catch {
        continuation.finish()
      }
    }
  }

  // MARK: One call

  @discardableResult
  private func call(
    _ request: ControlRequest, _ operation: String, _ subject: String, runs: [SnapshotLayout.PageRun] = []
  ) throws(MemtapError) -> (answer: ControlAnswer, runs: [SnapshotLayout.PageRun]) {
    let bytes = ControlFrame.encode(request, runs: runs)
    // An idle connection may be one to a pager that has ended since: then once more, with a new one.
    while let socket = idle.withLock({ $0.popLast() }) {
      if let outcome = try? exchange(bytes, socket) { return try open(outcome, socket) }
    }
    let socket: OwnedDescriptor
    let frame: ControlFrame
    do {
      socket = try UnixSocket.connect(path: socketPath)
      frame = try exchange(bytes, socket)
    } catch {
      throw MemtapError(.unavailable, operation: operation, subject: subject, cause: "\(error)")
    }
    return try open(frame, socket)
  }

  private func exchange(_ bytes: [UInt8], _ socket: OwnedDescriptor) throws -> ControlFrame {
    try ControlFrame.write(bytes, to: socket)
    guard let frame = try ControlFrame.read(socket) else {
      throw SystemError("read", subject: "the pager's answer", errno: EPIPE)
    }
    return frame
  }

  private func open(
    _ frame: ControlFrame, _ socket: OwnedDescriptor
  ) throws(MemtapError) -> (answer: ControlAnswer, runs: [SnapshotLayout.PageRun]) {
    guard let answer = try? frame.decode(ControlAnswer.self) else { throw nonsense("a call") }
    idle.withLock { $0.append(socket) }
    if case let .failed(error) = answer { throw error }
    return (answer, frame.runs)
  }

  private func nonsense(_ operation: String) -> MemtapError {
    MemtapError(
      .failed, operation: operation, subject: "memtap",
      cause: "the pager's answer is not of this protocol version")
  }
}
