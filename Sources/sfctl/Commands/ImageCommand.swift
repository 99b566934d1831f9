import ArgumentParser

struct ImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "The images that device VMs start from.",
    discussion: "EXAMPLE: sfctl image build mini",
    subcommands: [ImageBuildCommand.self, ImageListCommand.self])
}
