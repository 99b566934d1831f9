import LinuxSystem

/// A server or a receiver of pages: what a pager thread waits for besides faults. On that thread only.
protocol NetworkEndpoint: AnyObject {
  /// They do not change as long as it is in use.
  var descriptors: [OwnedDescriptor] { get }
  /// Monotonic nanoseconds; nil: only when a descriptor is readable.
  var nextDeadline: UInt64? { get }
  func readable(now: UInt64)
  func due(now: UInt64)
}

/// The sockets of a family, served by its thread between its faults.
extension PagerThread {
  /// Tags from here on are endpoints', below it regions'.
  static let endpointTag: UInt64 = 1 << 32

  func serve(_ endpoint: any NetworkEndpoint) throws(SystemError) {
    let index = endpoints.firstIndex { $0 == nil } ?? endpoints.count
    if index == endpoints.count { endpoints.append(endpoint) } else { endpoints[index] = endpoint }
    for descriptor in endpoint.descriptors {
      do throws(SystemError) {
        try epoll.add(descriptor, .readable, tag: Self.endpointTag + UInt64(index))
      } catch {
        abandon(endpoint)
        throw error
      }
    }
  }

  /// It is not served any more. Not an error if it was not.
  func abandon(_ endpoint: any NetworkEndpoint) {
    guard let index = endpoints.firstIndex(where: { $0 === endpoint }) else { return }
    for descriptor in endpoint.descriptors { epoll.remove(descriptor) }
    endpoints[index] = nil
    while let last = endpoints.last, last == nil { endpoints.removeLast() }
  }

  /// How long the thread may sleep, in nanoseconds; nil: until something is readable.
  func patience() -> UInt64? {
    var deadline: UInt64?
    for endpoint in endpoints {
      guard let next = endpoint?.nextDeadline else { continue }
      deadline = min(deadline ?? .max, next)
    }
    guard let deadline else { return nil }
    let now = monotonicNanoseconds()
    return deadline > now ? deadline - now : 0
  }

  /// After the faults of a round, of which `count` entries were ready.
  func serveNetwork(ready count: Int) {
    for index in 0..<count {
      let tag = epoll.tag(index)
      guard tag >= Self.endpointTag else { continue }
      // An end may have freed the place meanwhile.
      let place = Int(tag - Self.endpointTag)
      if place < endpoints.count, let endpoint = endpoints[place] {
        endpoint.readable(now: monotonicNanoseconds())
      }
    }
    var place = 0
    while place < endpoints.count {
      if let endpoint = endpoints[place], let deadline = endpoint.nextDeadline {
        let now = monotonicNanoseconds()
        if deadline <= now { endpoint.due(now: now) }
      }
      place += 1
    }
  }

  /// The snapshot goes: nothing of it is served or received any more.
  func closeNetwork(of snapshot: Snapshot) {
    snapshot.service?.close("the snapshot was dropped")
    snapshot.service = nil
    snapshot.remote?.close()
  }

  /// Goes on where an earlier pager served or received the snapshot.
  func reopenNetwork(of snapshot: Snapshot) {
    guard let manifest = try? SnapshotFiles.readManifest(snapshot.directory) else { return }
    if let remote = manifest.remote {
      let source = RemoteSource(of: snapshot, as: remote)
      snapshot.remote = source
      do throws(SystemError) { try source.open() } catch {
        originGone(snapshot, "its pages can not be received any more: \(error)")
      }
    }
    if let served = manifest.served {
      do throws(SystemError) {
        snapshot.service = try PageService(
          of: snapshot, address: served.address, transport: served.transport, key: served.key, as: served)
      } catch {
        tell("snapshot \(snapshot.id) can not be served to other hosts any more: \(error)")
      }
      if let reason = snapshot.lostReason { snapshot.service?.announceGone(reason) }
    }
  }
}
