import CloneDisk
import Foundation
import LinuxSystem
import Logging

/// Real programs on files of a test's own: two of them are two hosts.
final class DiskHost {
  let directory: String
  let disks: HostDisks
  private let name: String
  var socket: String { disks.daemon.exportsSocket }

  init(_ name: String, certificates: String = "/nowhere") throws {
    ignoreBrokenPipes()
    self.name = name
    directory = "/tmp/sf-disk-test-" + String(UInt32.random(in: 0...UInt32.max), radix: 36)
    try FileManager.default.createDirectory(atPath: directory + "/s", withIntermediateDirectories: true)
    disks = try Self.disks(directory, name, certificates)
  }

  /// What a second daemon on the host would make.
  func another() throws -> HostDisks { try Self.disks(directory, name, "/nowhere") }

  private static func disks(_ directory: String, _ name: String, _ certificates: String) throws -> HostDisks {
    try HostDisks(
      .init(
        directory: directory + "/disks", logs: directory, sockets: directory + "/s",
        certificates: certificates),
      ownHost: name, owner: "root", log: Logger(label: "test"))
  }

  deinit {
    disks.daemon.stop()
    disks.server.stop()
    try? FileManager.default.removeItem(atPath: directory)
  }

  /// A file of the user's: each byte of block n of 64 KiB is n.
  func file(blocks: Int) throws -> String {
    let path = directory + "/image.raw"
    let data = (0..<blocks).reduce(into: Data()) {
      $0.append(Data(repeating: UInt8($1 & 255), count: 1 << 16))
    }
    try data.write(to: URL(fileURLWithPath: path))
    return path
  }

  /// Whether the export reads as `blocks` of the file above; nil: not at all.
  func reads(_ export: String, blocks: Range<Int>) throws -> Bool? {
    let commands = blocks.flatMap { ["-c", "read -P \($0 & 255) \($0 << 16) 64k"] }
    let outcome = try run(
      "/usr/bin/qemu-io", ["-r", "-f", "raw"] + commands + ["nbd+unix:///\(export)?socket=\(socket)"])
    if outcome.text.contains("Pattern verification failed") { return false }
    return outcome.status == 0 && !outcome.text.contains("read failed") ? true : nil
  }

  /// Kills a process; its sockets are closed when this returns. Its entry stays until its parent collects it.
  static func end(_ pid: Int32) {
    kill(pid, SIGKILL)
    func isDead() -> Bool {
      guard let threads = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task"),
        let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
      else { return true }
      return threads.count == 1 && status.contains("State:\tZ")
    }
    while !isDead() { usleep(1000) }
  }

  func pid(of program: String) -> Int32? {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap(Int32.init).first { pid in
      let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") ?? Data()
      let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      return words.first?.hasSuffix(program) == true && words.contains { $0.contains(directory) }
    }
  }
}

func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, text: String) {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: program)
  process.arguments = arguments
  let output = Pipe()
  process.standardOutput = output
  process.standardError = output
  process.standardInput = FileHandle.nullDevice
  try process.run()
  let text = output.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return (process.terminationStatus, String(decoding: text, as: UTF8.self))
}

/// An authority's directory of certificates as a host has it; the name is what it is made out to.
func makeCertificates(_ directory: String, name: String) throws {
  let script = """
    set -e
    mkdir -p \(directory); cd \(directory)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 \
      -keyout ca.key -out ca-cert.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=host -keyout server-key.pem -out host.csr
    printf 'subjectAltName=DNS:\(name)\\nextendedKeyUsage=serverAuth,clientAuth\\n' > extensions
    openssl x509 -req -in host.csr -CA ca-cert.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions \
      -out server-cert.pem
    cp server-key.pem client-key.pem; cp server-cert.pem client-cert.pem
    """
  let outcome = try run("/bin/sh", ["-c", script])
  guard outcome.status == 0 else { throw DiskError(outcome.text) }
}
