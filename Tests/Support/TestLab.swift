import Foundation

/// Several hosts on this machine: network namespaces, as `sfctl lab` makes them.
extension TestHost {
  func labUp(hosts: Int, options: [String]) throws {
    let arguments = ["lab", "up", "--hosts", "\(hosts)"] + options
    let outcome = try start(arguments).wait()
    guard outcome.status == 0 else { throw Failed(arguments, outcome) }
  }

  /// Takes the lab down and says what is there all the same.
  func labDown() -> [String] {
    let names = labNamespaces()
    do {
      let outcome = try sfctl("lab", "down")
      guard outcome.status == 0 else { return ["the lab: \(outcome.error)"] }
    } catch { return ["the lab: \(error)"] }
    _ = eventually(seconds: 20) { LeftBehind.processes(of: self).isEmpty }
    return names.filter { FileManager.default.fileExists(atPath: "/run/netns/" + $0) }.map {
      "network namespace \($0)"
    }
  }

  private struct LabDocument: Decodable {
    struct Host: Decodable {
      var name: String
      var namespace: String
      var address: String
      var link: String
    }
    var bridge: String
    var hosts: [Host]
  }

  /// Runs a program in a lab host's network; nil: on the network between the hosts, which is no host's.
  public func command(on host: String?, _ arguments: [String]) throws -> Command {
    let lab: LabDocument = try document("lab", "ls")
    let namespace = lab.hosts.first { $0.name == host }?.namespace ?? lab.bridge
    return try Command(
      "/usr/bin/env", ["ip", "netns", "exec", namespace] + arguments, environment: environment, input: nil,
      scratch: directory + "/scratch")
  }

  /// Interfaces, tables and routers of families that hosts of the lab have.
  public func networkLeft() throws -> [String] {
    let lab: LabDocument = try document("lab", "ls")
    return try lab.hosts.flatMap { host in
      let links = try command(on: host.name, ["ip", "-br", "link"]).wait().lines
        .compactMap { $0.split(separator: " ").first }.filter { $0.hasPrefix("sf") }
      let tables = try command(on: host.name, ["nft", "list", "tables"]).wait().lines
        .filter { $0.contains("snowfork") }
      return links.map { "\(host.name): \($0)" } + tables.map { "\(host.name): \($0)" }
    }
  }

  /// The kinds of the hosts' links, h1's first.
  public func labLinks() throws -> [String] {
    try document("lab", "ls", as: LabDocument.self).hosts.map(\.link)
  }

  private func labNamespaces() -> [String] {
    guard let lab: LabDocument = try? document("lab", "ls") else { return [] }
    return [lab.bridge] + lab.hosts.map(\.namespace)
  }

  /// Where a host's daemon is called by others: address:port.
  public func hostAddress(_ name: String) throws -> String? {
    struct Document: Decodable {
      struct Host: Decodable {
        var name: String
        var address: String
      }
      var hosts: [Host]
    }
    let document: Document = try document("host", "ls")
    return document.hosts.first { $0.name == name }?.address
  }

  /// Runs sfctl on a host of the lab.
  @discardableResult
  public func on(_ host: String, _ arguments: String...) throws -> Command.Outcome {
    try start(["lab", "exec", host, "--", ProjectFiles.programs + "/sfctl"] + arguments).wait()
  }

  /// Processes of a lab's host that run the program. By its file: QEMU gives itself another name.
  public func pids(of program: String, on host: String) -> [Int32] {
    LeftBehind.processes(of: self).map(\.pid).filter { pid in
      let file = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/exe")) ?? ""
      guard (file as NSString).lastPathComponent == program else { return false }
      return ["environ", "cmdline"].contains { name in
        String(
          decoding: FileManager.default.contents(atPath: "/proc/\(pid)/\(name)") ?? Data(),
          as: UTF8.self
        ).contains("/lab/\(host)")
      }
    }
  }

  /// As if the host had lost its power: daemon, pager and VMs end at once.
  public func killHost(_ host: String) {
    for program in ["sfd", "sf-memtap", "qemu-system-x86_64"] {
      for pid in pids(of: program, on: host) { kill(pid, SIGKILL) }
    }
  }

  /// Whether this host and the one that the VM runs on have found each other.
  public func sees(_ vm: String, on host: String) -> Bool {
    (try? self.vm(vm)?.host == host && !on(host, "host", "ls").text.contains("down")) == true
  }
}
