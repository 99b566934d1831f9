import Foundation
import Synchronization

extension DiskFault {
  /// From the data of QEMU's event BLOCK_IO_ERROR (qapi/block-core.json); nil if it does not read as that.
  package init?(event details: String) {
    struct Event: Decodable {
      var node: String?
      var operation: String
      var reason: String
      enum CodingKeys: String, CodingKey {
        case operation, reason
        case node = "node-name"
      }
    }
    guard let event = try? JSONDecoder().decode(Event.self, from: Data(details.utf8)) else { return nil }
    self.init(node: event.node ?? "", isWrite: event.operation == "write", reason: event.reason)
  }
}

/// Holds back faults that were told a short time ago: a guest that writes on to a full disk makes thousands a second.
package final class DiskFaultFilter: Sendable {
  private let told = Mutex<[String: [DiskFault: ContinuousClock.Instant]]>([:])
  private let interval = Duration.seconds(60)

  package init() {}

  /// Whether the fault is to be told.
  package func passes(
    _ fault: DiskFault, of machine: String, at now: ContinuousClock.Instant = .now
  ) -> Bool {
    told.withLock { told in
      if let last = told[machine]?[fault], now - last < interval { return false }
      told[machine, default: [:]][fault] = now
      return true
    }
  }

  /// The machine has ended; the next one of its name is another.
  package func forget(_ machine: String) { told.withLock { _ = $0.removeValue(forKey: machine) } }
}
