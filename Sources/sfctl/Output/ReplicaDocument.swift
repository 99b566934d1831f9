import Wire

/// `checkpoint --json`.
struct CheckpointDocument: Encodable {
  var name: String
  var host: String
  var sequence: UInt64
  var pauseUs: UInt64
  var dirtyPages: UInt64
  var bytesSent: UInt64
  var diskBytes: UInt64
  var totalUs: UInt64

  init(_ result: Snowfork_V1_CheckpointResult) {
    name = result.name
    host = result.host
    sequence = result.sequence
    pauseUs = result.pauseUs
    dirtyPages = result.dirtyPages
    bytesSent = result.bytesSent
    diskBytes = result.diskBytes
    totalUs = result.totalUs
  }
}

/// A replicated VM or a standby, in `replicate --json` and `replica ls --json`.
struct ReplicaDocument: Encodable {
  var name: String
  /// device, standby
  var role: String
  var home: String
  var host: String
  /// replicating, waiting, interrupted, replaced, ended; standby, activating
  var state: String
  var sequence: UInt64
  var receivedSequence: UInt64
  var everyUs: UInt64
  var checkpointUnix: Int64
  var memoryBytes: UInt64
  var presentBytes: UInt64
  var reason: String
  /// The name of the policy that it follows, and why the next checkpoint is then or not now; empty: none.
  var policy: String
  var policyReason: String

  init(_ replica: Snowfork_V1_Replica) {
    name = replica.name
    role = replica.role
    home = replica.home
    host = replica.host
    state = replica.state
    sequence = replica.sequence
    receivedSequence = replica.receivedSequence
    everyUs = replica.everyUs
    checkpointUnix = replica.checkpointUnix
    memoryBytes = replica.memoryBytes
    presentBytes = replica.presentBytes
    reason = replica.reason
    policy = replica.policy
    policyReason = replica.policyReason
  }
}

/// `replica ls --json`.
struct ReplicaListDocument: Encodable {
  var replicas: [ReplicaDocument]

  var text: String {
    var table = Table(
      "NAME", "ROLE", "HOME", "STANDBY ON", "STATE", "CHECKPOINT", "RECEIVED", "TAKEN (UTC)", "EVERY",
      "POLICY",
      "RAM", "PRESENT", "REASON")
    for replica in replicas {
      table.add(
        replica.name, replica.role, replica.home, replica.host, replica.state, "\(replica.sequence)",
        "\(replica.receivedSequence)", Units.time(replica.checkpointUnix),
        replica.everyUs == 0 ? "-" : Units.microseconds(replica.everyUs),
        replica.policy.isEmpty ? "-" : replica.policy, Units.bytes(replica.memoryBytes),
        replica.role == "standby" ? Units.bytes(replica.presentBytes) : "-",
        replica.reason.isEmpty ? replica.policyReason : replica.reason)
    }
    return table.isEmpty ? "no standby; “sfctl replicate NAME --to HOST” makes one" : table.text
  }
}
