/// Snapshots served to other hosts, and those that come from them.
extension Pager {
  package func serve(
    snapshot id: String, address: String, transport: PageTransport
  ) throws(MemtapError) -> PageOrigin {
    throw MemtapError(.unsupported, operation: "serve", subject: id, cause: "not built yet")
  }

  package func attach(_ snapshot: RemoteSnapshot) throws(MemtapError) {
    throw MemtapError(.unsupported, operation: "attach", subject: snapshot.id, cause: "not built yet")
  }

  package func push(snapshot id: String, _ isOn: Bool) throws(MemtapError) {
    throw MemtapError(.unsupported, operation: "push", subject: id, cause: "not built yet")
  }

  package func originGone(snapshot id: String, reason: String) throws(MemtapError) {
    throw MemtapError(.unsupported, operation: "originGone", subject: id, cause: "not built yet")
  }

  package func history(snapshot id: String) throws(MemtapError) -> SnapshotHistory {
    throw MemtapError(.unsupported, operation: "history", subject: id, cause: "not built yet")
  }
}
