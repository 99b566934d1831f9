import Foundation
import Wire

/// `join --json`: how each clone ended.
struct JoinDocument: Encodable {
  var ticket: String
  var statuses: [ExitStatusOfClone]

  struct ExitStatusOfClone: Encodable {
    var vmid: UInt32
    /// exited, killed, lost
    var how: String
    var status: Int32
    /// What the clone brought home, in base64.
    var result: Data
    var reason: String
  }

  init(ticket: String, _ statuses: [Snowfork_V1_ExitStatus]) {
    self.ticket = ticket
    self.statuses = statuses.map {
      ExitStatusOfClone(vmid: $0.vmid, how: $0.how, status: $0.status, result: $0.result, reason: $0.reason)
    }
  }

  var text: String {
    var table = Table("VMID", "ENDED", "STATUS", "RESULT", "REASON")
    for one in statuses {
      table.add(
        "\(one.vmid)", one.how, one.how == "exited" ? "\(one.status)" : "",
        one.result.isEmpty ? "" : Units.bytes(UInt64(one.result.count)), one.reason)
    }
    return table.text
  }
}
