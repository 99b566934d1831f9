import ArgumentParser
import Wire

struct ReplicaCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replica", abstract: "Standbys of device VMs.",
    discussion: "EXAMPLE: sfctl replica ls && sfctl replica activate dev",
    subcommands: [ReplicaListCommand.self, ReplicaActivateCommand.self, ReplicaRemoveCommand.self])
}

struct ReplicaListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List replicated VMs of this host, and the standbys of all hosts.",
    discussion: "EXAMPLE: sfctl replica ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let reply = try await Daemon.callReplicas { try await $0.listReplicas(.init()) }
    let document = ReplicaListDocument(replicas: reply.replicas.map(ReplicaDocument.init))
    try output.show(document, text: document.text)
  }
}

struct ReplicaActivateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate",
    abstract: "Run a standby: its VM is lost, or with --as beside it.",
    discussion: "EXAMPLE: sfctl replica activate dev")

  @Argument(help: "The device VM's name.") var name: String
  @Option(name: .customLong("as"), help: "Another name to run it by.") var newName: String?
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_ActivateReplicaRequest.with {
      $0.name = name
      $0.newName = newName ?? ""
    }
    let vm = try await ProgressLine.during("activating the standby of \(name)") { _ in
      try await Daemon.callReplicas { try await $0.activateReplica(request).vm }
    }
    try output.show(VMDocument(vm), text: "\(vm.name) runs on \(vm.host)")
  }
}

struct ReplicaRemoveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove a standby; its VM is not replicated any more.",
    discussion: "EXAMPLE: sfctl replica rm dev")

  @Argument(help: "The device VM's name.") var name: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_RemoveReplicaRequest.with { $0.name = name }
    _ = try await Daemon.callReplicas { try await $0.removeReplica(request) }
    try output.show(RemovedDocument(name: name), text: "the standby of \(name) was removed")
  }

  private struct RemovedDocument: Encodable {
    var name: String
    var removed = true
  }
}
