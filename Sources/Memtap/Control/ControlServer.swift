import Glibc
import LinuxSystem

/// The daemon's door to the pager: one thread for each connection.
package final class ControlServer: Sendable {
  private let listener: OwnedDescriptor
  private let pager: Pager

  /// Root only.
  package init(pager: Pager) throws(SystemError) {
    self.pager = pager
    listener = try UnixSocket.listen(path: pager.paths.controlSocket, mode: 0o600)
  }

  /// Accepts connections for ever, on the calling thread.
  package func run() -> Never {
    while true {
      do throws(SystemError) {
        let socket = try UnixSocket.accept(listener)
        try NamedThread("memtap-control") { [self] in
          // A peer that breaks off or talks nonsense loses its connection, no more.
          try? converse(socket)
        }.detach()
      } catch {
        // No descriptors or threads to be had: the VMs that are served go before this call.
        tell("a call could not be taken: \(error)")
        usleep(100_000)
      }
    }
  }

  private func converse(_ socket: OwnedDescriptor) throws {
    while let frame = try ControlFrame.read(socket) {
      var request = try frame.decode(ControlRequest.self)
      if case .attach(var snapshot) = request {
        snapshot.existing = frame.runs
        request = .attach(snapshot)
      }
      if case .events = request {
        try pager.events.add(socket) { pager.standingEvents() }
        return
      }
      try ControlFrame.write(answer(request), to: socket)
    }
  }

  private func answer(_ request: ControlRequest) -> [UInt8] {
    do throws(MemtapError) {
      switch request {
      case .status: return ControlFrame.encode(ControlAnswer.status(try pager.status()))
      case let .expect(vm, token, ramBytes): try pager.expect(vm: vm, token: token, ramBytes: ramBytes)
      case let .waitForShim(vm, timeout): try pager.waitForShim(vm: vm, timeoutMilliseconds: timeout)
      case let .rename(vm, name): try pager.rename(vm: vm, to: name)
      case let .forget(vm): try pager.forget(vm: vm)
      case let .arm(vm): try pager.arm(vm: vm)
      case let .commit(vm, snapshot): try pager.commit(vm: vm, snapshot: snapshot)
      case let .survey(snapshot, kernel):
        return encode(try pager.survey(snapshot: snapshot, kernel: kernel))
      case let .disarm(vm): try pager.disarm(vm: vm)
      case let .activate(vm, snapshot, avoids):
        try pager.activate(vm: vm, snapshot: snapshot, avoids: avoids)
      case let .drop(snapshot): try pager.drop(snapshot: snapshot)
      case let .isWhole(snapshot):
        return ControlFrame.encode(ControlAnswer.whole(try pager.isWhole(snapshot: snapshot)))
      case let .complete(snapshot): try pager.complete(snapshot: snapshot)
      case let .serve(snapshot, address, transport):
        return ControlFrame.encode(
          ControlAnswer.origin(
            try pager.serve(snapshot: snapshot, address: address, transport: transport)))
      case let .attach(snapshot): try pager.attach(snapshot)
      case let .push(snapshot, isOn): try pager.push(snapshot: snapshot, isOn)
      case let .originGone(snapshot, reason): try pager.originGone(snapshot: snapshot, reason: reason)
      case let .history(snapshot):
        return ControlFrame.encode(ControlAnswer.history(try pager.history(snapshot: snapshot)))
      case let .checkpoint(order):
        return ControlFrame.encode(ControlAnswer.checkpoint(try pager.checkpoint(order)))
      case let .receive(standby, parent, path):
        let status = try pager.receive(standby: standby, parent: parent, path: path)
        return ControlFrame.encode(ControlAnswer.standbys([status]))
      case let .written(snapshot, since): return encode(try pager.written(snapshot, since: since))
      case .standbys: return ControlFrame.encode(ControlAnswer.standbys(try pager.standbys()))
      case .statistics: return ControlFrame.encode(ControlAnswer.statistics(try pager.statistics()))
      case .events: preconditionFailure("handled by converse")
      }
      return ControlFrame.encode(ControlAnswer.done)
    } catch {
      return ControlFrame.encode(ControlAnswer.failed(error))
    }
  }

  private func encode(_ layout: SnapshotLayout) -> [UInt8] {
    var header = layout
    header.existing = []
    return ControlFrame.encode(ControlAnswer.layout(header), runs: layout.existing)
  }
}
