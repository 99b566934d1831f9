import Dispatch
import Glibc

extension LibvirtHypervisor {
  /// How long the saving may take before it is called off.
  private static let saveTimeoutSeconds = 20

  // The machine is not suspended first: QEMU stops it by itself, as late as it can, and libvirt follows by QEMU's
  // events. After the stream's end QEMU is in `postmigrate`, from which `cont` goes on, again and again:
  //
  //   getfd, migrate ──► STOP ──► device state ──► MIGRATION completed ──┬─► whileStopped() ─┬─► cont ──► RESUME
  //                       │                                              └─► disks ──────────┘             │
  //                       └────────────────────────── pause ───────────────────────────────────────────────┘
  public func freeze(
    _ name: String, deviceState: CInt, disks: [DiskTurn] = [], whileStopped: () throws -> Void
  ) throws -> FreezeTimes {
    let began = DispatchTime.now()
    let operation = "freezing"
    let domain = try Domain(name, of: connection, operation: operation)
    let mailbox = try openMailbox(of: domain, operation: operation)
    defer { connection.mailboxes.close(name) }
    guard domain.state == .running else {
      throw HypervisorError(.failed, operation: operation, machine: name, cause: "it is not running")
    }
    let turns = try prepare(disks, of: domain, operation: operation)
    var hasTurned = false
    defer { if !hasTurned { turns.undo() } }
    let scheduling = FreezeScheduling(machine: name, pid: processID(of: name))
    defer { scheduling.end() }
    try domain.command(
      #"{"execute":"getfd","arguments":{"fdname":"snowfork"}}"#, descriptor: deviceState, operation: operation
    )
    do {
      try domain.command(#"{"execute":"migrate","arguments":{"uri":"fd:snowfork"}}"#, operation: operation)
    } catch {
      _ = try? domain.command(
        #"{"execute":"closefd","arguments":{"fdname":"snowfork"}}"#, operation: operation)
      throw error
    }

    let stopped: Int64
    do {
      stopped = try awaitSaved(domain, mailbox, operation: operation)
      try turns.make(during: whileStopped) { hasTurned = true }
    } catch {
      runOn(domain, operation: operation)
      throw error
    }
    let resumed = try resume(domain, mailbox, operation: operation)
    let total = DispatchTime.now().uptimeNanoseconds - began.uptimeNanoseconds
    return FreezeTimes(
      pauseMicroseconds: UInt64(max(resumed - stopped, 0)), totalMicroseconds: total / 1000)
  }

  public func resume(_ name: String) throws(HypervisorError) {
    let operation = "resuming"
    let domain = try Domain(name, of: connection, operation: operation)
    // Whoever froze it may have died in between.
    FreezeScheduling(machine: name, pid: processID(of: name)).end()
    guard domain.state == .paused else { return }
    try domain.command(#"{"execute":"migrate_cancel"}"#, operation: operation)
    try continueCPUs(domain, until: .now() + .seconds(5), operation: operation)
  }

  /// Returns when the device state is complete: the time at which the virtual CPUs had stopped.
  private func awaitSaved(
    _ domain: Domain, _ mailbox: MonitorMailbox, operation: String
  ) throws(HypervisorError) -> Int64 {
    let deadline = DispatchTime.now() + .seconds(Self.saveTimeoutSeconds)
    var stopped: Int64?
    while let event = mailbox.next(before: deadline) {
      switch event.kind {
      case .stopped: stopped = event.time
      case .migration("completed"):
        if let stopped { return stopped }
      case .migration("failed"), .migration("cancelled"):
        throw HypervisorError(
          .failed, operation: operation, machine: domain.name,
          cause: "QEMU could not save its device state: \(migrationError(of: domain))")
      case .ended: throw endedMeanwhile(domain, operation)
      case .migration, .resumed: break
      }
    }
    throw HypervisorError(
      .timedOut, operation: operation, machine: domain.name,
      cause: "its device state was not saved within \(Self.saveTimeoutSeconds) s")
  }

  /// Lets the virtual CPUs run; returns when they do, with QEMU's time of it.
  private func resume(
    _ domain: Domain, _ mailbox: MonitorMailbox, operation: String
  ) throws(HypervisorError) -> Int64 {
    let deadline = DispatchTime.now() + .seconds(5)
    try continueCPUs(domain, until: deadline, operation: operation)
    while let event = mailbox.next(before: deadline) {
      switch event.kind {
      case .resumed: return event.time
      case .ended: throw endedMeanwhile(domain, operation)
      case .stopped, .migration: break
      }
    }
    throw HypervisorError(
      .timedOut, operation: operation, machine: domain.name, cause: "it did not run on after it was saved")
  }

  /// After a failure: whatever state the saving was in, the machine runs afterwards, unless it has ended.
  private func runOn(_ domain: Domain, operation: String) {
    _ = try? domain.command(#"{"execute":"migrate_cancel"}"#, operation: operation)
    try? continueCPUs(domain, until: .now() + .seconds(5), operation: operation)
  }

  /// `cont`, again while QEMU says that the migration is not finalized yet, which it is a moment after its event.
  private func continueCPUs(
    _ domain: Domain, until deadline: DispatchTime, operation: String
  ) throws(HypervisorError) {
    while true {
      do {
        try domain.command(#"{"execute":"cont"}"#, operation: operation)
        return
      } catch {
        guard error.cause.contains("not finalized"), DispatchTime.now() < deadline else { throw error }
        usleep(200)
      }
    }
  }
}
