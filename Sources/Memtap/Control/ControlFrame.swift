import FoundationEssentials
import Glibc
import LinuxSystem

/// One message on memtap.sock:
///
///     0        4          8
///     | length | runs     | JSON, `length` bytes | page runs, 8 bytes each: first u32, count u32
///
/// Little endian. A layout travels as raw runs: it may have many.
struct ControlFrame {
  var json: [UInt8]
  var runs: [SnapshotLayout.PageRun]

  /// Requests and answers are small; runs are at most one for every second page of 16 TiB.
  static let jsonBytesMax = 1 << 20
  static let runsMax = 1 << 24

  static func encode(_ value: some Encodable, runs: [SnapshotLayout.PageRun] = []) -> [UInt8] {
    // Structures of strings and numbers always encode.
    guard let json = try? JSONEncoder().encode(value) else {
      preconditionFailure("a message does not encode")
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(8 + json.count + runs.count * 8)
    withUnsafeBytes(of: UInt32(json.count).littleEndian) { bytes.append(contentsOf: $0) }
    withUnsafeBytes(of: UInt32(runs.count).littleEndian) { bytes.append(contentsOf: $0) }
    bytes.append(contentsOf: json)
    runs.withUnsafeBytes { bytes.append(contentsOf: $0) }
    return bytes
  }

  /// Nil: the peer has closed. EPROTO: it says what is no message.
  static func read(_ socket: OwnedDescriptor) throws -> ControlFrame? {
    var header = [UInt32](repeating: 0, count: 2)
    guard try readAll(socket, &header) else { return nil }
    let (length, count) = (Int(UInt32(littleEndian: header[0])), Int(UInt32(littleEndian: header[1])))
    guard length <= jsonBytesMax, count <= runsMax else {
      throw SystemError("read", subject: "a message of \(length) bytes", errno: EPROTO)
    }
    var json = [UInt8](repeating: 0, count: length)
    var runs = [SnapshotLayout.PageRun](repeating: .init(first: 0, count: 0), count: count)
    let isWhole = try readAll(socket, &json)
    guard try isWhole && readAll(socket, &runs) else { return nil }
    return ControlFrame(json: json, runs: runs)
  }

  func decode<T: Decodable>(_ type: T.Type) throws -> T {
    guard let value = try? JSONDecoder().decode(type, from: Data(json)) else {
      throw SystemError("decode", subject: "\(type)", errno: EPROTO)
    }
    return value
  }

  static func write(_ bytes: [UInt8], to socket: OwnedDescriptor) throws {
    try bytes.withUnsafeBytes { try UnixSocket.send(socket, $0) }
  }

  private static func readAll<T>(_ socket: OwnedDescriptor, _ array: inout [T]) throws -> Bool {
    try array.withUnsafeMutableBytes { try $0.isEmpty || socket.readFully(into: $0) }
  }
}

/// A call of `MemtapControl`.
enum ControlRequest: Codable, Sendable {
  case status
  case expect(vm: String, token: String, ramBytes: UInt64)
  case waitForShim(vm: String, timeoutMilliseconds: Int)
  case rename(vm: String, to: String)
  case forget(vm: String)
  case arm(vm: String)
  case commit(vm: String, snapshot: String)
  case survey(snapshot: String, kernel: SurveyedKernel?)
  case disarm(vm: String)
  case activate(vm: String, snapshot: String, avoids: Bool)
  case drop(snapshot: String)
  case isWhole(snapshot: String)
  case complete(snapshot: String)
  case serve(snapshot: String, address: String, transport: PageTransport)
  /// Its `existing` travels beside it.
  case attach(RemoteSnapshot)
  case push(snapshot: String, isOn: Bool)
  case originGone(snapshot: String, reason: String)
  case history(snapshot: String)
  case checkpoint(CheckpointOrder)
  case receive(standby: String, parent: String, path: String)
  case standbys
  case written(snapshot: String, since: String)
  case statistics
  /// From here on the connection carries `MemtapEvent`s to the client.
  case events
}

/// Its outcome.
enum ControlAnswer: Codable, Sendable {
  case done
  case status(MemtapStatus)
  case whole(Bool)
  case origin(PageOrigin)
  case history(SnapshotHistory)
  case statistics(MemtapStatistics)
  case checkpoint(CheckpointPages)
  case standbys([StandbyStatus])
  /// Its `existing` travels beside it.
  case layout(SnapshotLayout)
  case failed(MemtapError)
}
