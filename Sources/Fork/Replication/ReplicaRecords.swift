import Foundation
import GRDB
import GuestKernel

/// A device VM of this host that has a standby on another. One row a VM.
struct ReplicationRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "replication"

  /// A checkpoint that was taken and is not the standby's yet.
  struct Pending: Codable, Sendable {
    var sequence: Int64
    /// Of the pager.
    var snapshot: String
    /// 0: it is full.
    var base: Int64
    var baseDigest: String
    var digest: String
    var totalBytes: Int64
    var takenUnix: Int64
    /// The uppermost layer of each disk at that moment; nil: the VM has no disks.
    var disks: [String]?
  }

  var name: String
  /// 128 random bits, hexadecimal: the standby's.
  var replica: String
  var host: String
  /// 0: only when a checkpoint is asked for, or as the policy says.
  var everyMicroseconds: Int64
  /// Instead of a period.
  var policy: PolicyFile?
  /// Of the last checkpoint that the standby has; 0 and empty: none.
  var sequence: Int64 = 0
  var digest = ""
  /// The snapshot of that one, of the pager; nil: the next one is full.
  var base: String?
  /// The uppermost layers of the disks of that one.
  var baseDisks: [String]?
  var checkpointUnix: Int64 = 0
  /// Of the last one that was taken.
  var takenSequence: Int64 = 0
  var pending: Pending?
  /// Why the last try failed; nil: it did not.
  var reason: String?
  /// Of the last transfer.
  var tookMicroseconds: Int64 = 0
  /// As the last transfers have shown it; 0: not known yet.
  var linkBytesPerSecond: Int64 = 0
  /// The standby runs in the VM's place: no checkpoint is taken any more.
  var isReplaced = false

  struct PolicyFile: Codable, Sendable, Equatable {
    /// For people.
    var name: String
    /// The file as the user gave it.
    var text: String
    /// What the user says of the link, whatever the policy says; nil: nothing.
    var isMetered: Bool?
  }

  /// Snapshots that are the replication's own.
  var snapshots: [String] { [base, pending?.snapshot].compactMap(\.self) }
}

/// A standby on this host of a device VM of another. One row a standby.
struct StandbyRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "standby"

  enum State: String, Codable, Sendable {
    case standby
    /// Its VM is being started.
    case activating
    /// Its VM runs in the device VM's place; kept so that a home that comes back learns of it.
    case activated
  }

  /// As the home calls it.
  var replica: String
  var name: String
  var home: String
  var state: State = .standby
  /// The pager's, which clones are made of. Empty: none yet, or a VM has it.
  var snapshot = ""
  var sequence: Int64 = 0
  var digest = ""
  var checkpointUnix: Int64 = 0
  var memoryBytes: Int64 = 0
  /// Checkpoints that have come whole and wait, in their order, until nothing stands on the pages.
  var queue: [Queued] = []

  struct Queued: Codable, Sendable, Equatable {
    var sequence: Int64
    var digest: String
    var takenUnix: Int64
  }

  /// The last one that is here whole.
  var received: (sequence: Int64, digest: String) {
    queue.last.map { ($0.sequence, $0.digest) } ?? (sequence, digest)
  }

  /// Snapshots of this standby begin with it; the number of their full checkpoint follows.
  static func snapshotPrefix(_ replica: String) -> String { "r-\(replica.prefix(16))-" }
}

/// What a checkpoint says of the VM beside RAM and devices: what `vm start` was told.
struct ReplicaMachine: Codable, Sendable {
  var name: String
  var image: String
  var memoryBytes: Int64
  var vcpus: Int
  var commandLine: String
  var compatibility: String
  var cpuLimitPercent: Int
  var takenUnix: Int64
  var network: NetworkCard?
  /// The next number that its family gives to clones of clones.
  var nextNumber: Int?
  /// The sizes of its disks; nil: it has none.
  var diskBytes: [UInt64]?
  var traits: GuestTraits
}

extension Store {
  static func makeReplicaTables(_ database: Database) throws {
    try database.create(table: "replication") { table in
      table.primaryKey("name", .text)
      for column in ["replica", "host", "digest"] { table.column(column, .text).notNull() }
      for column in ["everyMicroseconds", "sequence", "checkpointUnix", "takenSequence"] {
        table.column(column, .integer).notNull()
      }
      for column in ["base", "pending", "reason"] { table.column(column, .text) }
    }
    try database.create(table: "standby") { table in
      table.primaryKey("replica", .text)
      for column in ["name", "home", "state", "snapshot", "digest", "queue"] {
        table.column(column, .text).notNull()
      }
      for column in ["sequence", "checkpointUnix", "memoryBytes"] { table.column(column, .integer).notNull() }
    }
  }

  static func addPolicyColumns(_ database: Database) throws {
    try database.alter(table: "replication") { table in
      table.add(column: "policy", .text)
      for column in ["tookMicroseconds", "linkBytesPerSecond"] {
        table.add(column: column, .integer).notNull().defaults(to: 0)
      }
      table.add(column: "isReplaced", .boolean).notNull().defaults(to: false)
    }
  }

  static func addDisksOfReplications(_ database: Database) throws {
    try database.alter(table: "replication") { $0.add(column: "baseDisks", .text) }
  }
}

extension Configuration {
  /// Checkpoints on their way out and in, and device states: `out/REPLICA`, `in/REPLICA`.
  var replicaDirectory: String { stateDirectory + "/replicas" }
  func outgoingDirectory(_ replica: String) -> String { replicaDirectory + "/out/\(replica)" }
  func standbyDirectory(_ replica: String) -> String { replicaDirectory + "/in/\(replica)" }
  /// The device state of a checkpoint.
  static func stateFile(_ directory: String, _ sequence: Int64) -> String { "\(directory)/state-\(sequence)" }
  static func checkpointFile(_ directory: String, _ sequence: Int64) -> String {
    "\(directory)/checkpoint-\(sequence)"
  }
  /// A checkpoint that has come whole and waits.
  static func queuedFile(_ directory: String, _ sequence: Int64) -> String {
    "\(directory)/queued-\(sequence)"
  }
  /// For disks that can not be read where they lie, while a checkpoint is made.
  static func scratchFile(_ directory: String) -> String { "\(directory)/scratch" }
  /// A checkpoint whose pages may be the standby's already, and its disks not yet.
  static func redoFile(_ directory: String, _ sequence: Int64) -> String { "\(directory)/redo-\(sequence)" }
  /// A disk of the standby, raw. It belongs to the pager's snapshot, and is of the same checkpoint.
  static func diskFile(_ directory: String, _ snapshot: String, _ index: Int) -> String {
    "\(directory)/disk-\(index)-\(snapshot)"
  }
  /// What a checkpoint says of its VM (`ReplicaMachine`).
  static func machineFile(_ directory: String, _ sequence: Int64) -> String {
    "\(directory)/machine-\(sequence)"
  }

  /// Takes a replica's directory away, and those above it that are empty then.
  func removeReplicaDirectory(_ directory: String) {
    try? FileManager.default.removeItem(atPath: directory)
    rmdir((directory as NSString).deletingLastPathComponent)
    rmdir(replicaDirectory)
  }
}

/// `hexadecimal` back to bytes; empty if it is none.
func bytes(ofHexadecimal text: String) -> [UInt8] {
  let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
  guard digits.count == text.utf8.count, digits.count % 2 == 0 else { return [] }
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
