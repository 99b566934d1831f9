import BenchSupport
import Foundation
import GuestMemory

/// What one transfer gave.
struct Transfer {
  /// Bytes of the image a second, at the receiver that had all last; of the plain sender: see bench/README.md.
  var goodput: Double
  /// Beyond the image, for the record.
  var details: [String: Double] = [:]
}

/// One way to bring the image to all receivers. Each transfer starts and ends its own processes.
struct System: Sendable {
  var name: String
  /// Receivers keep the image, so that it can be compared.
  var keeps = true
  var transfer: @Sendable (Setting) throws -> Transfer

  struct Setting {
    var network: Network
    var image: String
    var imageBytes: Int
    /// On tmpfs, empty; what receivers keep is looked for there.
    var directory: String
    var megabits: Int
    var loss: Int
    var receivers: Int { network.receivers }
    func kept(_ host: Int) -> String { "\(directory)/\(host)" }
  }

  static let all = [mcdist, plain, udpcast, uftp, tcp]

  static let mcdist = System(name: "mcdist") { setting in
    let network = setting.network
    let server = try Host(network, 0, role: ["mcdist-send", network.address(0), setting.image])
    defer { server.end() }
    let origin = try server.wait(for: "ready")
    let pages = String(setting.imageBytes / Page.bytes)
    let receivers = try (1...setting.receivers).map { host in
      try Host(
        network, host,
        role: ["mcdist-receive", network.address(host), network.address(0)] + origin
          + [pages, setting.kept(host)])
    }
    defer { receivers.forEach { $0.end() } }
    var transfer = try transfer(from: server, to: receivers, goTo: receivers, bytes: setting.imageBytes)
    for host in receivers + [server] {
      try host.finish()
      for field in try host.wait(for: "counted") {
        let parts = field.split(separator: "=")
        if parts.count == 2, let value = Double(parts[1]) {
          transfer.details[String(parts[0]), default: 0] += value
        }
        if field == "transport=unicast" { transfer.details["unicast", default: 0] += 1 }
      }
    }
    return transfer
  }

  static let plain = System(name: "plain", keeps: false) { setting in
    let network = setting.network
    let receivers = try (1...setting.receivers).map {
      try Host(network, $0, role: ["plain-receive", network.address($0)])
    }
    defer { receivers.forEach { $0.end() } }
    for receiver in receivers { try receiver.wait(for: "ready") }
    let sender = try Host(network, 0, role: ["plain-send", network.address(0), setting.image])
    defer { sender.end() }
    try sender.wait(for: "ready")
    let start = now()
    try sender.say("go")
    let sent = try End(sender.wait(for: "done"))
    usleep(500_000)
    var (came, last) = (0.0, sent.time)
    for receiver in receivers {
      try receiver.say("stop")
      let end = try End(receiver.wait(for: "done"))
      came += end.bytes / Double(setting.receivers)
      last = max(last, end.time)
    }
    return Transfer(
      goodput: came / (last - start),
      details: ["sent_bytes_per_s": sent.bytes / (sent.time - start), "received_share": came / sent.bytes])
  }

  static let tcp = System(name: "tcp", keeps: false) { setting in
    let network = setting.network
    let receivers = try (1...setting.receivers).map {
      try Host(network, $0, role: ["tcp-receive", network.address($0), String(setting.imageBytes)])
    }
    defer { receivers.forEach { $0.end() } }
    for receiver in receivers { try receiver.wait(for: "ready") }
    let addresses = (1...setting.receivers).map(network.address)
    let sender = try Host(network, 0, role: ["tcp-send", setting.image] + addresses)
    defer { sender.end() }
    return try transfer(from: sender, to: receivers, goTo: [sender], bytes: setting.imageBytes, isReady: true)
  }

  /// All are told to go when all are ready; until the last has all.
  private static func transfer(
    from sender: Host, to receivers: [Host], goTo starters: [Host], bytes: Int, isReady: Bool = false
  ) throws -> Transfer {
    if isReady {
      try sender.wait(for: "ready")
    } else {
      for host in receivers { try host.wait(for: "ready") }
    }
    let start = now()
    for host in starters { try host.say("go") }
    let ends = try receivers.map { try End($0.wait(for: "done")).time }.sorted()
    return Transfer(
      goodput: Double(bytes) / (ends.last! - start), details: ["median_s": ends[ends.count / 2] - start])
  }

  struct End {
    var time: Double
    var bytes: Double
    init(_ words: [String]) throws {
      guard words.count == 2, let time = Double(words[0]), let bytes = Double(words[1]) else {
        throw BenchError("a host said \(words)")
      }
      (self.time, self.bytes) = (time / 1e9, bytes)
    }
  }
}
