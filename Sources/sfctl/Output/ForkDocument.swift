import Wire

/// `fork --json` and `clone --json`.
struct ForkDocument: Encodable {
  var ticket: String
  var snapshot: String
  var parent: String
  var ramBytes: UInt64
  var descriptorBytes: UInt64
  var requested: UInt32
  var granted: UInt32
  var parentPauseUs: UInt64
  var forkUs: UInt64
  /// From the request to the last slot prepared; not part of `forkUs`.
  var ticketUs: UInt64
  /// That were free in the guest and held data: clones get zeros. Why it is not known what was free; empty: it is.
  var freePages: UInt64
  var freeUnknown: String
  var clones: [Clone]
  var phases: [Phase]

  struct Clone: Encodable {
    var vmid: UInt32
    var name: String
    var host: String
    var state: String
    var activateUs: UInt64
    var readyUs: UInt64
    var reason: String
    var processes: UInt32
    /// At its end: since the call, and of its RAM; 0 while it lives.
    var endedUs: UInt64
    var touchedBytes: UInt64
    var privateBytes: UInt64

    /// `3`, or `3–4` of a hierarchical ticket's clone.
    var vmidText: String { processes > 1 ? "\(vmid)–\(vmid + processes - 1)" : "\(vmid)" }
  }

  /// Microseconds since the call.
  struct Phase: Encodable {
    var phase: String
    var beginUs: UInt64
    var endUs: UInt64
  }

  init(_ result: Snowfork_V1_ForkResult) {
    ticket = result.ticket
    snapshot = result.snapshot
    parent = result.parent
    ramBytes = result.ramBytes
    descriptorBytes = result.descriptorBytes
    requested = result.requested
    granted = result.granted
    parentPauseUs = result.parentPauseUs
    forkUs = result.forkUs
    ticketUs = result.ticketUs
    freePages = result.freePages
    freeUnknown = result.freeUnknown
    clones = result.clones.map {
      Clone(
        vmid: $0.vmid, name: $0.name, host: $0.host, state: $0.state, activateUs: $0.activateUs,
        readyUs: $0.readyUs, reason: $0.reason, processes: $0.processes, endedUs: $0.endedUs,
        touchedBytes: $0.touchedBytes, privateBytes: $0.privateBytes)
    }
    phases = result.phases.map { Phase(phase: $0.phase, beginUs: $0.beginUs, endUs: $0.endUs) }
  }

  var text: String {
    var lines = [
      "ticket \(ticket): \(granted) of \(requested) clones of \(parent), from snapshot \(snapshot)",
      "ready after \(Units.microseconds(forkUs)); \(pauseText)descriptor \(Units.bytes(descriptorBytes)) for \(Units.bytes(ramBytes)) of RAM",
    ]
    var table = Table("VMID", "NAME", "HOST", "STATE", "ACTIVATED", "READY", "REASON")
    if granted < requested {
      lines.append(
        "fewer than asked for: the hosts have no room for more (memory, or 64 virtual CPUs a processor), or slots did not start (see the daemon's log)"
      )
    }
    for clone in clones {
      table.add(
        clone.vmidText, clone.name, clone.host, clone.state, Units.microseconds(clone.activateUs),
        Units.microseconds(clone.readyUs), clone.reason)
    }
    lines.append(table.text)
    return lines.joined(separator: "\n")
  }

  /// Of a kept snapshot the parent paused when it was made, not now.
  var pauseText: String {
    guard phases.contains(where: { $0.phase == "freeze" }) else { return "" }
    return "the parent paused \(Units.microseconds(parentPauseUs)); "
  }

  /// Throws where a clone did not come to life: the caller has asked for working clones.
  func requireAllRunning() throws {
    let dead = clones.filter { $0.state == "lost" }
    guard let first = dead.first else { return }
    let others =
      dead.count == clones.count
      ? "See the daemon's log." : "The others run; “sfctl kill \(ticket)” ends them."
    throw Failure(
      "\(dead.count) of \(clones.count) clones were lost: \(first.name): \(first.reason). \(others)")
  }
}
