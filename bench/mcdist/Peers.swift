import BenchSupport
import Foundation
import Glibc

extension System {
  /// Peers may wait for ever for what was lost.
  private static let limit = ["timeout", "--kill-after", "1", "40"]

  /// From the sender's "Starting transfer", after all receivers have registered, until the last receiver has ended.
  static let udpcast = System(name: "udpcast", keeps: false) { setting in
    let common = ["--nokbd", "--no-progress", "--interface", Network.interface, "--ttl", "1"]
    let receivers = try (1...setting.receivers).map { host in
      try Host(setting.network, host, limit + ["udp-receiver", "--file", "/dev/null"] + common)
    }
    defer { receivers.forEach { $0.end() } }
    usleep(300_000)
    let sender = try Host(
      setting.network, 0,
      limit + [
        "udp-sender", "--file", setting.image, "--min-receivers", "\(setting.receivers)", "--full-duplex",
      ]
        + ["--rexmit-hello-interval", "200"]
        + ["--nopointopoint"]
        + (setting.megabits > 0 ? ["--max-bitrate", "\(setting.megabits * 95 / 100)m"] : [])
        + common)
    defer { sender.end() }
    try sender.wait(for: "Starting transfer")
    let start = now()
    for receiver in receivers { try receiver.waitUntilExit() }
    return Transfer(goodput: Double(setting.imageBytes) / (now() - start))
  }

  /// The time that uftp itself gives for the file, without the announcement.
  static let uftp = System(name: "uftp") { setting in
    let port = ["-I", Network.interface]
    let receivers = try (1...setting.receivers).map { host in
      mkdir(setting.kept(host) + ".d", 0o755)
      return try Host(
        setting.network, host,
        limit + ["uftpd", "-d", "-B", "8388608", "-D", setting.kept(host) + ".d"]
          + ["-U", String(format: "0x%08X", host)] + port)
    }
    defer { receivers.forEach { $0.end() } }
    usleep(300_000)
    let hosts = (1...setting.receivers).map { String(format: "0x%08X", $0) }.joined(separator: ",")
    let rate = setting.megabits > 0 ? "\(setting.megabits * 1000 * 95 / 100)" : "-1"
    let sender = try Host(
      setting.network, 0,
      limit + [
        "uftp", "-R", rate, "-B", "8388608", "-b", "1400", "-H", hosts, "-r", "0.05:0.01:1", "-D", "image",
      ]
        + port + [setting.image])
    defer { sender.end() }
    let words = try sender.wait(for: "Total elapsed time:")
    guard let seconds = words.first.flatMap(Double.init), seconds > 0 else {
      throw BenchError("uftp gave the time \(words)")
    }
    try sender.waitUntilExit()
    for host in 1...setting.receivers {
      rename(setting.kept(host) + ".d/image", setting.kept(host))
    }
    return Transfer(goodput: Double(setting.imageBytes) / seconds)
  }
}
