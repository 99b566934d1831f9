import Foundation
import LinuxSystem
import Wire

/// A host of the cluster. `generation` grows with each change, so that the newer of two opinions is known.
struct ClusterMember: Codable, Sendable, Equatable {
  var name: String
  var address: String
  var port: Int
  var generation: UInt64
  var isRemoved = false
}

/// What this host has of the cluster: its identity, and who else is in it. Files of `$SNOWFORK_STATE/cluster`, root
/// only:
///
///     cluster.json    this host's name, and the members
///     authority.pem   whom to trust
///     host.pem  host.key
///     authority.key   on the host that made the cluster
struct ClusterFiles: Sendable {
  let directory: String

  struct Identity: Sendable {
    var authorityPEM: String
    var certificatePEM: String
    var keyPEM: String
  }

  private struct Document: Codable {
    var host: String
    var members: [ClusterMember]
  }

  /// What `host add` hands to a new host. Whoever reads it can be that host.
  struct Bundle: Codable, Sendable {
    var snowfork = "bundle 1"
    var host: ClusterMember
    var members: [ClusterMember]
    var authority: String
    var certificate: String
    var key: String
  }

  func load() throws -> (host: String, members: [ClusterMember], identity: Identity)? {
    guard let data = FileManager.default.contents(atPath: directory + "/cluster.json") else { return nil }
    let document = try JSONDecoder().decode(Document.self, from: data)
    return (
      document.host, document.members,
      Identity(
        authorityPEM: try readTextFile(directory + "/authority.pem"),
        certificatePEM: try readTextFile(directory + "/host.pem"),
        keyPEM: try readTextFile(directory + "/host.key"))
    )
  }

  /// Nil: another host made the cluster.
  func authority() throws -> Authority? {
    guard FileManager.default.fileExists(atPath: directory + "/authority.key") else { return nil }
    return Authority(
      certificatePEM: try readTextFile(directory + "/authority.pem"),
      keyPEM: try readTextFile(directory + "/authority.key"))
  }

  /// The members last: with them the identity counts as whole.
  func save(host: String, members: [ClusterMember], identity: Identity, authority: Authority?) throws {
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    try write("authority.pem", Data(identity.authorityPEM.utf8))
    try write("host.pem", Data(identity.certificatePEM.utf8))
    try write("host.key", Data(identity.keyPEM.utf8))
    if let authority { try write("authority.key", Data(authority.keyPEM.utf8)) }
    try save(host: host, members: members)
  }

  func save(host: String, members: [ClusterMember]) throws {
    try write("cluster.json", JSONEncoder().encode(Document(host: host, members: members)))
  }

  private func write(_ name: String, _ data: Data) throws {
    let path = "\(directory)/\(name)"
    let file = try OwnedDescriptor.open(path + ".new", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
    try data.withUnsafeBytes { try file.writeFully($0) }
    try systemCall("rename", subject: path) { rename(path + ".new", path) }
  }
}
