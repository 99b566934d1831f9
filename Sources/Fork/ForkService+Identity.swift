import GuestWire
import Memtap
import Synchronization

/// What makes a clone itself: given to its agent when it runs.
extension ForkService {
  func identity(
    of record: VMRecord, snapshot: SnapshotRecord, request: UInt32
  ) -> GuestMessage.Identity {
    var generator = SystemRandomNumberGenerator()
    func random(_ count: Int) -> [UInt8] {
      (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
    return GuestMessage.Identity(
      epoch: UInt64(record.epoch), vmid: UInt32(record.vmid), processes: UInt32(record.processes),
      hostname: record.name, machineID: random(GuestMessage.Identity.machineIDLength),
      wallClockNanoseconds: Self.wallClockNanoseconds(), seed: random(GuestMessage.Identity.seedLength),
      ticket: record.ticket ?? "", snapshot: snapshot.id, cloneRequest: request,
      ipAddress: record.network?.addressText ?? "",
      macAddress: record.network?.mac.map { "\($0)" } ?? "", gateway: record.network?.gatewayText ?? "")
  }

  /// Tells each time whether pages were fetched for the VM since the last time.
  func isFetching(_ name: String) -> @Sendable () async -> Bool {
    let before = Mutex<UInt64>(0)
    return { [memtap] in
      let all = try? await memtap.run { try $0.statistics().vms }
      let fetched = all?.first { $0.vm == name }?.pagesFetched ?? 0
      return before.withLock { last in
        defer { last = fetched }
        return fetched > last
      }
    }
  }
}
