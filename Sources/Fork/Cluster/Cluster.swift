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
  private(set) var host: String
  private(set) var members: [String: ClusterMember] = [:]
  private(set) var identity: ClusterFiles.Identity?
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

  // MARK: becoming a member

  func make(name: String, address: String, port: Int) throws -> ClusterMember {
    if let own {
      guard own.address == address, own.port == port, own.name == name || name.isEmpty else {
        throw ForkError(
          .exists,
          "cannot make a cluster: \(host) is in one, at \(own.address):\(own.port). Remove \(files.directory) to leave it."
        )
      }
      return own
    }
    let name = name.isEmpty ? host : name
    try Self.checkHostName(name)
    let authority = try Authority.make()
    let issued = try authority.enrol(host: name)
    let own = ClusterMember(name: name, address: address, port: port, generation: Self.now())
    let identity = ClusterFiles.Identity(
      authorityPEM: authority.certificatePEM, certificatePEM: issued.certificatePEM, keyPEM: issued.keyPEM)
    try files.save(host: name, members: [own], identity: identity, authority: authority)
    (host, members, self.identity) = (name, [name: own], identity)
    return own
  }

  func add(name: String, address: String, port: Int) throws -> ClusterFiles.Bundle {
    let what = "cannot add host \(name)"
    try Self.checkHostName(name)
    guard isMember, let authority = try files.authority() else {
      throw ForkError(
        .refused,
        isMember
          ? "\(what): another host made this cluster and has its authority. Add it there."
          : "\(what): this host is in no cluster. Make one with sfctl host init.")
    }
    guard name != host else { throw ForkError(.exists, "\(what): it is this host. Choose another name.") }
    if let other = others.first(where: { $0.address == address && $0.port == port && $0.name != name }) {
      throw ForkError(.exists, "\(what): \(address):\(port) is \(other.name)'s. Give its own address.")
    }
    let issued = try authority.enrol(host: name)
    let member = ClusterMember(name: name, address: address, port: port, generation: Self.now())
    members[name] = member
    try files.save(host: host, members: Array(members.values))
    greet()
    return ClusterFiles.Bundle(
      host: member, members: Array(members.values), authority: authority.certificatePEM,
      certificate: issued.certificatePEM, key: issued.keyPEM)
  }

  func join(_ bundle: ClusterFiles.Bundle) throws -> ClusterMember {
    let what = "cannot join the cluster"
    if isMember, host != bundle.host.name {
      throw ForkError(
        .exists, "\(what): this host is in one, as \(host). Remove \(files.directory) to leave it.")
    }
    guard bundle.snowfork == "bundle 1" else {
      throw ForkError(.invalid, "\(what): the file is no host bundle. Make one with sfctl host add.")
    }
    let identity = ClusterFiles.Identity(
      authorityPEM: bundle.authority, certificatePEM: bundle.certificate, keyPEM: bundle.key)
    try files.save(host: bundle.host.name, members: bundle.members, identity: identity, authority: nil)
    host = bundle.host.name
    self.identity = identity
    for member in bundle.members { merge(member) }
    return bundle.host
  }

  func remove(_ name: String) throws {
    guard var member = members[name], !member.isRemoved else {
      throw ForkError(.notFound, "there is no host \(name). See sfctl host ls.")
    }
    guard name != host else {
      throw ForkError(.refused, "cannot remove \(name): it is this host. Remove it from another one.")
    }
    member.isRemoved = true
    member.generation = max(Self.now(), member.generation + 1)
    members[name] = member
    try files.save(host: host, members: Array(members.values))
    drop(name)
  }

  private static func checkHostName(_ name: String) throws(ForkError) {
    if name.wholeMatch(of: /[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?/) == nil {
      throw ForkError(
        .invalid,
        "\"\(name)\" is no host's name: lower-case letters, digits and -, at most 32. Choose another.")
    }
  }

  private static func now() -> UInt64 { UInt64(Date().timeIntervalSince1970 * 1000) }

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

  private func drop(_ name: String) {
    greeters.removeValue(forKey: name)?.cancel()
    connections.removeValue(forKey: name)?.close()
    greetings.removeValue(forKey: name)?.close()
    let wasUp = peers.removeValue(forKey: name)?.isUp == true
    if wasUp, let observer { Task { await observer.peerIsDown(name) } }
  }

  private func hello(_ name: String, timeout: Duration = .seconds(5)) async {
    if peers[name] == nil { peers[name] = Peer() }
    do {
      var options = CallOptions.defaults
      options.timeout = timeout
      let reply = try await greeting(to: name).peer.hello(await helloRequest(), options: options)
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
    if let known = members[member.name], known.generation >= member.generation { return }
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
