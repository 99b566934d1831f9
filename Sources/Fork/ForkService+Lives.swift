import Foundation

/// Whose a VM's name is. What starts, activates or ends a VM holds its name meanwhile, and a name that is held is not
/// forgotten: after each await the record is still of the same VM, and no other VM's domain, files or card are taken away.
extension ForkService {
  func hold(_ name: String) { holders[name, default: 0] += 1 }

  func letGo(_ name: String) {
    holders[name, default: 1] -= 1
    guard holders[name] == 0 else { return }
    holders[name] = nil
    for waiting in awaitingRelease.removeValue(forKey: name) ?? [] { waiting.resume() }
  }

  /// Returns when nobody holds the name. Not to be called by one who does.
  func untilLetGo(_ name: String) async {
    while holders[name] != nil {
      await withCheckedContinuation { awaitingRelease[name, default: []].append($0) }
    }
  }

  /// Takes back whatever `launch` and `connect` did, after any of their steps, and forgets the VM. On return its name is
  /// free, and whoever was starting it has failed.
  func discard(_ name: String) async {
    guard let uuid = guests[name]?.record.uuid else { return }
    // What libvirt says of its end is then no news.
    guests[name]?.record.state = .ending
    var isAgain = true
    while isAgain {
      hold(name)
      await tearDown(name)
      letGo(name)
      // Who was starting it may have come further than what was taken back.
      isAgain = holders[name] != nil
      await untilLetGo(name)
      guard guests[name]?.record.uuid == uuid else { return }
    }
    guests[name] = nil
    await persist("the end of VM \(name)") { try await self.store.delete(vm: name) }
  }

  /// On return no domain, process, file or pager region of the VM is left. Safe after any step, and twice.
  func tearDown(_ name: String) async {
    if let host = guests[name]?.record.host {
      await endElsewhere(name, on: host)
      return
    }
    guests[name]?.session?.close()
    guests[name]?.session = nil
    do {
      try await withHypervisor { try $0.destroy(name) }
    } catch {
      log.error("cannot end the domain of \(name): \(error)")
    }
    do {
      try await memtap.run { try $0.forget(vm: name) }
    } catch {
      log.error("the pager cannot forget \(name): \(error)")
    }
    if let record = guests[name]?.record {
      await releaseDisks(of: record)
      await removeCard(of: record)
    }
    try? FileManager.default.removeItem(atPath: configuration.vmDirectory(name))
    try? FileManager.default.removeItem(atPath: configuration.consoleLogPath(name))
  }
}
