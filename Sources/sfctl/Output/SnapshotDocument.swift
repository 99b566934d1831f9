import Wire

/// A fork point, in `snapshot create --json` and `snapshot ls --json`.
struct SnapshotDocument: Encodable {
  var snapshot: String
  var parent: String
  var image: String
  var ramBytes: UInt64
  var presentBytes: UInt64
  var descriptorBytes: UInt64
  var parentPauseUs: UInt64
  var createdUnix: Int64
  var clones: UInt32
  var kept: Bool
  var freePages: UInt64
  var freeUnknown: String

  init(_ info: Snowfork_V1_SnapshotInfo) {
    snapshot = info.snapshot
    parent = info.parent
    image = info.image
    ramBytes = info.ramBytes
    presentBytes = info.presentBytes
    descriptorBytes = info.descriptorBytes
    parentPauseUs = info.parentPauseUs
    createdUnix = info.createdUnix
    clones = info.clones
    kept = info.kept
    freePages = info.freePages
    freeUnknown = info.freeUnknown
  }
}

/// `snapshot ls --json`.
struct SnapshotListDocument: Encodable {
  var snapshots: [SnapshotDocument]

  var text: String {
    var table = Table("SNAPSHOT", "PARENT", "IMAGE", "CREATED (UTC)", "RAM", "PRESENT", "CLONES", "KEPT")
    for snapshot in snapshots {
      table.add(
        snapshot.snapshot, snapshot.parent, snapshot.image, Units.time(snapshot.createdUnix),
        Units.bytes(snapshot.ramBytes), Units.bytes(snapshot.presentBytes), "\(snapshot.clones)",
        snapshot.kept ? "yes" : "no")
    }
    return table.isEmpty ? "no snapshot; “sfctl snapshot create NAME SNAP” makes one" : table.text
  }
}
