import Foundation

/// How hosts become members, and cease to be.
extension Cluster {
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
    let generation = max(Self.now(), (members[name]?.generation ?? 0) + 1)
    let member = ClusterMember(name: name, address: address, port: port, generation: generation)
    disconnect(name)
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
    if let identity, identity.authorityPEM != bundle.authority {
      throw ForkError(
        .exists, "\(what): this host is in another one. Remove \(files.directory) to leave that.")
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
}
