import Foundation
import LinuxSystem
import ReplicationPolicy

/// When checkpoints are taken: by a period, by a policy, or only when one is asked for.
extension ForkService {
  /// What is known of a policy's replication as long as this daemon lives.
  struct Pacing {
    let policy: Policy
    var reader: ConditionsReader
    var last: Policy.LastCheckpoint?
    /// What the policy said last, and whether that was: not now.
    var why = ""
    var isWaiting = false
  }

  static func parse(_ file: ReplicationRecord.PolicyFile, _ what: String) throws(ForkError) -> Policy {
    do { return try Policy(json: Array(file.text.utf8)) } catch {
      let place = error.line.map { "line \($0): " } ?? ""
      throw ForkError(.invalid, "\(what): policy \(file.name): \(place)\(error)")
    }
  }

  /// To be called when the record's policy is another one, or an earlier daemon's.
  func beginPacing(of name: String) throws(ForkError) {
    pacings[name] = nil
    guard let record = replications[name], let file = record.policy else { return }
    var pacing = Pacing(
      policy: try Self.parse(file, "cannot replicate \(name)"),
      reader: ConditionsReader(powerSupplies: configuration.powerSupplies))
    if record.sequence > 0 {
      let age = Duration.seconds(max(0, Self.unixNow() - record.checkpointUnix))
      pacing.last = .init(began: Self.now - age, took: .microseconds(record.tookMicroseconds))
    }
    pacings[name] = pacing
  }

  private static var now: Duration { .microseconds(Int64(monotonicMicroseconds())) }

  /// Nil: it follows no policy.
  func decide(for name: String, _ purpose: Policy.Purpose) async -> Policy.Decision? {
    guard let policy = pacings[name]?.policy else { return nil }
    let conditions = await conditions(of: name, policy)
    guard let pacing = pacings[name] else { return nil }
    let decision = pacing.policy.decide(
      now: Self.now, conditions: conditions, lastCheckpoint: pacing.last, for: purpose)
    if purpose == .background {
      pacings[name]?.why = decision.why
      if case .notNow = decision { pacings[name]?.isWaiting = true } else { pacings[name]?.isWaiting = false }
    }
    return decision
  }

  private func conditions(of name: String, _ policy: Policy) async -> PolicyConditions {
    guard let record = replications[name], let pid = guests[name]?.record.pid,
      let known = pacings[name]?.reader
    else { return PolicyConditions() }
    var pagesWritten: UInt64?
    if policy.asksWhetherIdle, let base = record.base {
      // What was written since then was saved there.
      let snapshots = try? await memtap.run { try $0.statistics().snapshots }
      pagesWritten = snapshots?.first { $0.snapshot == base }?.pagesPresent
    }
    let (now, written) = (Self.now, pagesWritten)
    let read = try? await workers.run {
      var reader = known
      let idle = policy.asksWhetherIdle ? reader.isIdle(pid: pid, now: now, pagesWritten: written) : nil
      return (reader, reader.power(), idle)
    }
    guard let read else { return PolicyConditions() }
    pacings[name]?.reader = read.0
    let speed = UInt64(max(0, record.linkBytesPerSecond))
    return PolicyConditions(
      isMetered: record.policy?.isMetered ?? policy.isMetered, linkBytesPerSecond: speed > 0 ? speed : nil,
      power: read.1, isIdle: read.2)
  }

  /// Throws what the user is told if the policy wants no checkpoint on demand now.
  func permitCheckpoint(of name: String, _ what: String) async throws {
    guard let file = replications[name]?.policy, let decision = await decide(for: name, .onDemand) else {
      return
    }
    let begin = "\(what): policy \(file.name), \(decision.why)"
    switch decision {
    case .notNow:
      throw ForkError(
        .refused, "\(begin). Give it another one with sfctl replicate \(name) --to HOST --policy FILE.")
    case .at(let time, _):
      let wait = (time - Self.now).components
      guard wait.seconds > 0 || wait.attoseconds > 0 else { return }
      throw ForkError(.refused, "\(begin). Try again in \(wait.seconds + 1) s.")
    }
  }

  /// A transfer has ended: what it says of the link. `bytes` without the last piece, which is applied there too; 0: there
  /// was no other.
  func noteTransfer(
    of name: String, began: UInt64, tookMicroseconds took: UInt64, bytes: UInt64, in microseconds: UInt64
  ) {
    replications[name]?.tookMicroseconds = Int64(took)
    pacings[name]?.last = .init(began: .microseconds(Int64(began)), took: .microseconds(Int64(took)))
    guard bytes > 0, let before = replications[name]?.linkBytesPerSecond else { return }
    let speed = Int64(min(Double(bytes) * 1e6 / Double(max(1, microseconds)), 1e12))
    // What took long is sure; other figures may be of a moment.
    let isSure = before == 0 || microseconds >= 200_000
    replications[name]?.linkBytesPerSecond = max(1, isSure ? speed : (before + speed) / 2)
  }

  // MARK: The loop

  /// Checkpoints come by themselves from now on, and what could not be sent is sent when its host answers again.
  func beginLoop(of name: String) {
    replicationLoops[name]?.cancel()
    let followsPolicy = replications[name]?.policy != nil
    replicationLoops[name] = Task {
      if followsPolicy { await followPolicy(of: name) } else { await keepPeriod(of: name) }
    }
  }

  private func keepPeriod(of name: String) async {
    var due = ContinuousClock.now
    while !Task.isCancelled, let record = replications[name] {
      let every = Duration.microseconds(record.everyMicroseconds)
      due += every
      do { try await Task.sleep(until: max(due, ContinuousClock.now), clock: .continuous) } catch { return }
      if record.everyMicroseconds == 0 {
        do { try await Task.sleep(for: Self.lookInterval) } catch { return }
      }
      due = max(due, ContinuousClock.now - every)
      guard let record = replications[name], !Task.isCancelled else { return }
      guard record.everyMicroseconds > 0 || record.pending != nil else { continue }
      guard await takeByItself(name, onlyPending: record.everyMicroseconds == 0) else { return }
    }
  }

  /// Circumstances change: it is asked every second, and whenever it names a time.
  private func followPolicy(of name: String) async {
    while !Task.isCancelled, let decision = await decide(for: name, .background) {
      var pause = Self.lookInterval
      if case .at(let time, _) = decision {
        let wait = time - Self.now
        if wait <= .zero {
          guard await takeByItself(name, onlyPending: false) else { return }
          continue
        }
        pause = min(pause, wait)
      }
      do { try await Task.sleep(for: pause) } catch { return }
    }
  }

  /// False: the loop has ended.
  private func takeByItself(_ name: String, onlyPending: Bool) async -> Bool {
    do {
      if onlyPending { try await sendPending(of: name) } else { _ = try await takeCheckpoint(of: name) }
    } catch {
      if Task.isCancelled { return false }
      log.notice("checkpoint of \(name): \(error)")
      do { try await Task.sleep(for: Self.lookInterval) } catch { return false }
    }
    return true
  }

  private static let lookInterval = Duration.seconds(1)
}
