import ArgumentParser

struct VMDestroyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "destroy", abstract: "End a device VM at once.",
    discussion: "EXAMPLE: sfctl vm destroy dev")

  @Argument(help: "The VM's name.") var name: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    try await stopVM(name, destroy: true)
    try output.show(EndedDocument(name: name), text: "\(name) was ended")
  }
}
