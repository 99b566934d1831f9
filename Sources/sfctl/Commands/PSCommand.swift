import ArgumentParser
import Wire

struct PSCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ps", abstract: "List every VM on every host.", discussion: "EXAMPLE: sfctl ps --all")

  @Flag(name: .shortAndLong, help: "Those that have ended too, as long as their ticket lives.")
  var all = false
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_ListVMsRequest.with { $0.all = all }
    let reply = try await Daemon.call { try await $0.listVMs(request) }
    let document = VMListDocument(vms: reply.vms.map(VMDocument.init))
    try output.show(document, text: document.text)
  }
}
