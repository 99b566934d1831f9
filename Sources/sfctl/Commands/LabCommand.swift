import ArgumentParser
import Foundation
import LinuxSystem
import Wire

struct LabCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lab", abstract: "Several hosts on this machine, to try forks over hosts.",
    discussion: "EXAMPLE: sfctl lab up --hosts 4 && sfctl vm start dev && sfctl fork dev -n 8",
    subcommands: [
      LabUpCommand.self, LabListCommand.self, LabExecCommand.self, LabLossCommand.self, LabCutCommand.self,
      LabMendCommand.self, LabLinkCommand.self, LabDownCommand.self, LabRelayCommand.self,
    ])

  static var paths: RuntimePaths { RuntimePaths.fromEnvironment() }

  static func current() throws(Failure) -> Lab {
    guard let lab = Lab.load(paths) else {
      throw Failure("there is no lab. Make one with sfctl lab up --hosts 4.", .notFound)
    }
    return lab
  }
}

struct LabUpCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "up", abstract: "Make hosts h1 … hN on this machine; until lab down sfctl talks to h1.",
    discussion: "EXAMPLE: sfctl lab up --hosts 2 --link wifi")

  @Option(help: "How many hosts, 1 to 32.") var hosts: Int
  @Option(help: "Share of the datagrams that is lost on the way to each host, in percent.") var loss = 0
  @Option(
    help: ArgumentHelp(
      "The link of h1, or of a HOST: 3g, wifi (rate and delay of the paper), lan (no limit). May be given again.",
      valueName: "[HOST=]LINK"))
  var link: [LinkArgument] = []

  func validate() throws {
    guard (1...32).contains(hosts) else { throw ValidationError("--hosts takes 1 to 32.") }
    guard (0...90).contains(loss) else { throw ValidationError("--loss takes 0 to 90.") }
  }

  func run() async throws {
    let paths = LabCommand.paths
    guard geteuid() == 0 else {
      throw Failure("cannot make a lab: it takes root. Run sfctl as root.", .refused)
    }
    if let lab = Lab.load(paths) {
      throw Failure(
        "cannot make a lab: one with \(lab.hosts.count) hosts is up. Take it down with sfctl lab down.",
        .refused)
    }
    let lab = try Lab(hosts: hosts, links: link, paths)
    do {
      try lab.save(paths)
      lab.removeNetwork()
      try lab.makeDirectories(paths)
      try lab.makeNetwork()
      try await lab.startRelays(paths)
      try await ProgressLine.during("starting \(hosts) hosts") { line in
        try await lab.enrol(paths) { done in
          await line.update(
            .with {
              $0.text = "starting hosts"
              $0.done = UInt32(done)
              $0.total = UInt32(hosts)
            })
        }
      }
      for host in lab.hosts { try lab.setLoss(percent: loss, on: host) }
    } catch {
      await LabDownCommand.takeDown(lab, paths)
      throw error
    }
    Standard.output("\(hosts) hosts are up: h1 … h\(hosts). sfctl talks to h1 until sfctl lab down.")
  }
}

struct LabDownCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "down", abstract: "End the lab's VMs, daemons and networks.",
    discussion: "EXAMPLE: sfctl lab down")

  func run() async throws {
    let paths = LabCommand.paths
    guard let lab = Lab.load(paths) else { return }
    try await ProgressLine.during("taking the lab down") { _ in await Self.takeDown(lab, paths) }
  }

  static func takeDown(_ lab: Lab, _ paths: RuntimePaths) async {
    await lab.endProcesses(paths)
    lab.removeNetwork()
    Lab.remove(paths)
  }
}

struct LabExecCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec", abstract: "Run a command on a host of the lab.",
    discussion: "EXAMPLE: sfctl lab exec h2 -- sfctl ps")

  @Argument(help: "The host.") var host: String
  @Argument(parsing: .captureForPassthrough, help: "The command.") var command: [String]

  func run() async throws {
    let words = command.first == "--" ? Array(command.dropFirst()) : command
    guard !words.isEmpty else {
      throw Failure("cannot run a command: none was named. Name one after --.", .usage)
    }
    let lab = try LabCommand.current()
    let host = try lab.host(host)
    for (name, value) in lab.environment(of: host, LabCommand.paths) { setenv(name, value, 1) }
    let own =
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/local/bin/sfctl"
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    setenv("PATH", (own as NSString).deletingLastPathComponent + ":" + path + ":/usr/sbin:/sbin", 1)
    let all = lab.command(on: host, words)
    var arguments: [UnsafeMutablePointer<CChar>?] = all.map { strdup($0) } + [nil]
    execvp("ip", &arguments)
    throw Failure("cannot run ip: \(String(cString: strerror(errno))). Run tools/setup.")
  }
}

struct LabLossCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "loss", abstract: "Lose a share of the datagrams on the way to a host, or to all.",
    discussion: "EXAMPLE: sfctl lab loss 20 h3")

  @Argument(help: "Percent, 0 to 90.") var percent: Int
  @Argument(help: "The host (default: all).") var host: String?

  func validate() throws {
    guard (0...90).contains(percent) else { throw ValidationError("The loss is 0 to 90 percent.") }
  }

  func run() async throws {
    let lab = try LabCommand.current()
    for host in try host.map({ name throws(Failure) in [try lab.host(name)] }) ?? lab.hosts {
      try lab.setLoss(percent: percent, on: host)
    }
  }
}

struct LabCutCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cut", abstract: "Cut a host off from the others.", discussion: "EXAMPLE: sfctl lab cut h3")

  @Argument(help: "The host.") var host: String

  func run() async throws {
    let lab = try LabCommand.current()
    try lab.setConnected(false, host: lab.host(host))
  }
}

struct LabMendCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mend", abstract: "Connect a host that was cut off.",
    discussion: "EXAMPLE: sfctl lab mend h3")

  @Argument(help: "The host.") var host: String

  func run() async throws {
    let lab = try LabCommand.current()
    try lab.setConnected(true, host: lab.host(host))
  }
}

struct LabLinkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "link", abstract: "Give a host that was made with --link another link.",
    discussion: "EXAMPLE: sfctl lab link h1=3g")

  @Argument(help: "3g, wifi or lan, of h1 or of a HOST.", completion: .list(Link.allCases.map(\.rawValue)))
  var link: LinkArgument

  func run() async throws {
    var lab = try LabCommand.current()
    try await lab.setLink(link.link, on: lab.host(link.host), LabCommand.paths)
  }
}

struct LabListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the lab's hosts.", discussion: "EXAMPLE: sfctl lab ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let lab = try LabCommand.current()
    var table = Table("HOST", "ADDRESS", "LINK", "NAMESPACE", "SNOWFORK_RUN")
    for host in lab.hosts {
      table.add(
        host.name, host.address, host.link.text, host.namespace, lab.paths(of: host, LabCommand.paths).run)
    }
    try output.show(lab, text: table.text)
  }
}
