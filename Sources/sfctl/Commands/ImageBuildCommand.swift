import ArgumentParser
import Foundation

struct ImageBuildCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "build", abstract: "Build an image by its recipe; nothing is done where it is up to date.",
    discussion: "EXAMPLE: sfctl image build debian")

  @Argument(help: "The recipe: mini, debian, debian-disk or mpi.") var name: String
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard !name.isEmpty, name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }) else {
      throw ValidationError("“\(name)” is not a recipe's name.")
    }
  }

  func run() async throws {
    let builder = try ProgramFiles.imageBuilder()
    let image = ImageDirectory.named(name)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: builder)
    process.arguments = [name, image.path]
    // What the recipe says is for a person: stdout is ours.
    process.standardOutput = FileHandle.standardError
    do {
      try process.run()
    } catch {
      throw Failure("cannot build image \(name): \(builder) does not start: \(error.localizedDescription).")
    }
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure("cannot build image \(name): see its recipe's message above. Run “sfctl doctor”.")
    }
    let document = try ImageDocument(image)
    try output.show(document, text: "image \(name) is in \(image.path)")
  }
}
