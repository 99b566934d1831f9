import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import Logging
import Wire

/// The hosts that this one works with. Each says hello to each other every two seconds; lists of members are
/// exchanged with it, the newer entry of a name wins. A host that was not heard for `downAfter` is down.
actor Cluster {
  static let helloInterval = Duration.seconds(2)
  static let downAfter = Duration.seconds(15)
  static let defaultPort = 7543

  /// A host as its last hello described it.
  struct Peer: Sendable {
    var info = Snowfork_V1_HelloReply()
    /// Its last answer or call.
    var heard = ContinuousClock.now
    var state = State.unknown
    var instance: UInt64 = 0

    /// Unknown: it has not answered yet since this daemon started.
    enum State: Sendable { case unknown, up, down }
    var isUp: Bool { state == .up }
  }

  /// What follows from a host's coming and going.
  protocol Observer: AnyObject, Sendable {
    func peerIsUp(_ name: String, _ reply: Snowfork_V1_HelloReply, isNew: Bool) async
    func peerIsDown(_ name: String) async
  }

  let files: ClusterFiles
  private let log: Logger
  var host: String
  var members: [String: ClusterMember] = [:]
  var identity: ClusterFiles.Identity?
  private(set) var peers: [String: Peer] = [:]
  private var connections: [String: PeerConnection] = [:]
  /// Of their own, so that a hello does not wait behind a descriptor on a network that loses packets.
  private var greetings: [String: PeerConnection] = [:]
  private var greeters: [String: Task<Void, Never>] = [:]
  private weak var observer: (any Observer)?
  let instance = UInt64.random(in: 1...UInt64.max)

  /// `host`: the machine's name, unless the cluster knows it by another.
  init(files: ClusterFiles, host: String, log: Logger) throws {
    self.files = files
    self.log = log
    self.host = host
    if let known = try files.load() {
      self.host = known.host
      identity = known.identity
      members = Dictionary(known.members.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }
  }

  var own: ClusterMember? { members[host] }
  var isMember: Bool { identity != nil }
  var others: [ClusterMember] {
    members.values.filter { $0.name != host && !$0.isRemoved }.sorted { $0.name < $1.name }
  }

  func observe(_ observer: any Observer) { self.observer = observer }

  // MARK: hello

  /// Says hello to every other member from now on.
  func greet() {
    for member in others where greeters[member.name] == nil {
      greeters[member.name] = Task { [weak self] in
        while !Task.isCancelled {
          await self?.hello(member.name)
          try? await Task.sleep(for: Self.helloInterval)
        }
      }
    }
  }

  /// One hello to each, so that what is asked of a daemon that has just started is not asked in vain.
  func greetOnce(within limit: Duration) async {
    await withTaskGroup(of: Void.self) { group in
      for member in others { group.addTask { await self.hello(member.name, timeout: limit) } }
    }
  }

  func drop(_ name: String) {
    greeters.removeValue(forKey: name)?.cancel()
    disconnect(name)
    let wasUp = peers.removeValue(forKey: name)?.isUp == true
    if wasUp, let observer { Task { await observer.peerIsDown(name) } }
  }

  func disconnect(_ name: String) {
    connections.removeValue(forKey: name)?.abort()
    greetings.removeValue(forKey: name)?.abort()
  }

  private func hello(_ name: String, timeout: Duration = .seconds(5)) async {
    if peers[name] == nil { peers[name] = Peer() }
    do {
      let reply = try await greeting(to: name).peer.hello(helloRequest(), options: .within(timeout))
      for member in reply.members { merge(ClusterMember(member)) }
      guard let before = peers[name] else { return }
      let isNew = !before.isUp || before.instance != reply.instance
      peers[name] = Peer(info: reply, state: .up, instance: reply.instance)
      if isNew { log.info("host \(name) is up") }
      await observer?.peerIsUp(name, reply, isNew: isNew)
    } catch {
      greetings.removeValue(forKey: name)?.close()
      guard let peer = peers[name], peer.state != .down, ContinuousClock.now - peer.heard > Self.downAfter
      else { return }
      peers[name]?.state = .down
      log.warning("host \(name) is down: \(error)")
      connections.removeValue(forKey: name)?.abort()
      await observer?.peerIsDown(name)
    }
  }

  private func helloRequest() -> Snowfork_V1_HelloRequest {
    .with {
      $0.host = host
      $0.instance = instance
      $0.members = members.values.map(\.wire)
    }
  }

  /// It has called: it lives, even if its answers are lost.
  func heard(from name: String) { peers[name]?.heard = .now }

  /// The newer entry of a name wins.
  func merge(_ member: ClusterMember) {
    let known = members[member.name]
    if let known, known.generation >= member.generation { return }
    if let known, (known.address, known.port) != (member.address, member.port) { disconnect(member.name) }
    members[member.name] = member
    do { try files.save(host: host, members: Array(members.values)) } catch {
      log.error("cannot record the members: \(error)")
    }
    if member.isRemoved { drop(member.name) } else { greet() }
  }

  func isEnrolled(_ name: String) -> Bool { members[name].map { !$0.isRemoved } ?? false }

  // MARK: calling

  /// The connection to a member; made when it is first used, and again when it breaks.
  private func connection(to name: String) throws -> PeerConnection {
    if let connection = connections[name], !connection.hasEnded { return connection }
    let connection = try connect(to: name)
    connections[name] = connection
    return connection
  }

  private func greeting(to name: String) throws -> PeerConnection {
    if let connection = greetings[name], !connection.hasEnded { return connection }
    let connection = try connect(to: name)
    greetings[name] = connection
    return connection
  }

  private func connect(to name: String) throws -> PeerConnection {
    guard let member = members[name], !member.isRemoved, let identity else {
      throw ForkError(.notFound, "there is no host \(name). See sfctl host ls.")
    }
    return try PeerConnection(to: member, identity: identity)
  }

  /// Of a member that is up.
  func reach(_ name: String) throws -> PeerConnection {
    let connection = try connection(to: name)
    guard peers[name]?.isUp == true else {
      throw ForkError(
        .failed, "host \(name) does not answer. Check it and its network; see sfctl host ls.")
    }
    return connection
  }

  /// A call that may be made again without harm. On a network that loses packets a connection can stand still for
  /// minutes: then it is made again on another one.
  func insist<T: Sendable>(
    on name: String, timeout: Duration, _ call: @Sendable (PeerConnection, CallOptions) async throws -> T
  ) async throws -> T {
    var attempt = 1
    while true {
      let connection = try reach(name)
      do {
        return try await call(connection, .within(timeout))
      } catch let error as RPCError {
        guard attempt < Self.attempts, error.code == .deadlineExceeded || error.code == .unavailable else {
          throw error
        }
        log.notice("host \(name): \(error.code), attempt \(attempt)")
        attempt += 1
        if connections[name] === connection { connections[name] = nil }
      }
    }
  }
  private static let attempts = 5

  func close() {
    for task in greeters.values { task.cancel() }
    for connection in connections.values { connection.close() }
    for connection in greetings.values { connection.close() }
    (greeters, connections, greetings) = ([:], [:], [:])
  }
}

extension ClusterMember {
  init(_ wire: Snowfork_V1_Member) {
    self.init(
      name: wire.name, address: wire.address, port: Int(wire.port), generation: wire.generation,
      isRemoved: wire.removed)
  }

  var wire: Snowfork_V1_Member {
    .with {
      $0.name = name
      $0.address = address
      $0.port = UInt32(port)
      $0.generation = generation
      $0.removed = isRemoved
    }
  }
}
