import GRDB

/// What must outlive the daemon: VMs, tickets, snapshots and exits, in SQLite.
///
/// The write-ahead log without a sync per commit: a daemon's death loses nothing, a machine's death ends the VMs
/// as well (sqlite.org/pragma.html#pragma_synchronous).
final class Store: Sendable {
  private let queue: DatabaseQueue

  init(path: String) throws {
    var configuration = GRDB.Configuration()
    configuration.prepareDatabase { database in
      try database.execute(sql: "PRAGMA journal_mode = WAL")
      try database.execute(sql: "PRAGMA synchronous = NORMAL")
    }
    queue = try DatabaseQueue(path: path, configuration: configuration)
    try Self.migrator.migrate(queue)
  }

  func save(_ records: any PersistableRecord & Sendable...) async throws {
    try await queue.write { database in
      for record in records { try record.save(database) }
    }
  }

  func load<Record: FetchableRecord & TableRecord & Sendable>(_ type: Record.Type) async throws -> [Record] {
    try await queue.read { try Record.fetchAll($0) }
  }

  /// VMs that were whole when the daemon ended: those that run, and the slots of tickets that may still be used. All
  /// others were being made or ended.
  func adoptableMachines() async throws -> Set<String> {
    let granted = Set(try await load(TicketRecord.self).filter { $0.state == .granted }.map(\.id))
    return Set(
      try await load(VMRecord.self).filter { vm in
        vm.state == .running || vm.state == .warm && vm.ticket.map(granted.contains) == true
      }.map(\.name))
  }

  func delete(vm name: String) async throws {
    try await queue.write { _ = try VMRecord.deleteOne($0, key: name) }
  }

  /// Deletes the ticket with its exits and the rows of its clones.
  func delete(ticket id: String) async throws {
    try await queue.write { database in
      _ = try TicketRecord.deleteOne(database, key: id)
      try database.execute(sql: "DELETE FROM exit WHERE ticket = ?", arguments: [id])
      try database.execute(sql: "DELETE FROM vm WHERE ticket = ?", arguments: [id])
    }
  }

  func delete(snapshot id: String) async throws {
    try await queue.write { _ = try SnapshotRecord.deleteOne($0, key: id) }
  }

  func delete(family id: String) async throws {
    try await queue.write { _ = try FamilyNumbers.deleteOne($0, key: id) }
  }

  func delete<Record: TableRecord>(_ type: Record.Type, key: String) async throws {
    try await queue.write { _ = try type.deleteOne($0, key: key) }
  }

  private static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1") { database in
      try database.create(table: "vm") { table in
        table.primaryKey("name", .text)
        for column in ["uuid", "role", "state", "image", "commandLine", "generationID", "shimToken"] {
          table.column(column, .text).notNull()
        }
        for column in [
          "vmid", "processes", "memoryBytes", "vcpus", "epoch", "cpuLimitPercent", "createdUnix", "pid",
          "activateMicroseconds", "readyMicroseconds", "endedMicroseconds", "touchedBytes", "privateBytes",
        ] {
          table.column(column, .integer).notNull()
        }
        for column in ["ticket", "snapshot", "kernelPath", "initrdPath", "how", "reason"] {
          table.column(column, .text)
        }
      }
      try database.create(table: "ticket") { table in
        table.primaryKey("id", .text)
        for column in ["parent", "owner", "state"] { table.column(column, .text).notNull() }
        table.column("guestRequest", .integer)
        table.column("hierarchical", .boolean).notNull()
        for column in ["requested", "granted", "createdUnix", "ticketMicroseconds"] {
          table.column(column, .integer).notNull()
        }
        table.column("snapshot", .text)
      }
      try database.create(table: "snapshot") { table in
        table.primaryKey("id", .text)
        for column in ["parent", "image", "commandLine"] { table.column(column, .text).notNull() }
        table.column("kept", .boolean).notNull()
        for column in [
          "memoryBytes", "vcpus", "descriptorBytes", "pauseMicroseconds", "createdUnix", "checkpointRequest",
        ] {
          table.column(column, .integer).notNull()
        }
        table.column("lost", .text)
      }
      try database.create(table: "exit") { table in
        table.column("ticket", .text).notNull()
        table.column("vmid", .integer).notNull()
        table.column("how", .text).notNull()
        table.column("status", .integer).notNull()
        table.column("result", .blob).notNull()
        table.column("reason", .text).notNull()
        table.primaryKey(["ticket", "vmid"])
      }
    }
    migrator.registerMigration("2") { database in
      try database.alter(table: "vm") { table in
        table.add(column: "host", .text)
        table.add(column: "home", .text)
      }
      for name in ["ticket", "snapshot"] {
        try database.alter(table: name) { $0.add(column: "home", .text) }
      }
    }
    migrator.registerMigration("3") { database in
      for name in ["vm", "snapshot"] {
        try database.alter(table: name) { $0.add(column: "disks", .text) }
      }
    }
    migrator.registerMigration("4") { database in
      for name in ["vm", "snapshot"] {
        try database.alter(table: name) { $0.add(column: "network", .text) }
      }
      try database.create(table: "family") { table in
        table.primaryKey("id", .text)
        for column in ["first", "last", "next"] { table.column(column, .integer).notNull() }
      }
    }
    migrator.registerMigration("5") { database in
      try database.alter(table: "snapshot") { table in
        table.add(column: "freePages", .integer).notNull().defaults(to: 0)
        table.add(column: "freeUnknown", .text)
      }
      for name in ["vm", "snapshot"] {
        try database.alter(table: name) { table in
          table.add(column: "traits", .text).notNull().defaults(
            to: #"{"fetchesAll":false,"isAgentless":false}"#)
        }
      }
    }
    migrator.registerMigration("replicas") { try makeReplicaTables($0) }
    migrator.registerMigration("policies of replication") { try addPolicyColumns($0) }
    migrator.registerMigration("disks of replicas") { try addDisksOfReplications($0) }
    return migrator
  }
}
