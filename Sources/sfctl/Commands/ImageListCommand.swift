import ArgumentParser
import Foundation
import Wire

struct ImageListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the images that are built.",
    discussion: "EXAMPLE: sfctl image ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let directory = RuntimePaths.fromEnvironment().images
    let names = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
    let images = names.map { ImageDirectory(path: directory + "/" + $0) }.filter(\.isBuilt)
    let document = ImageListDocument(images: try images.map(ImageDocument.init))
    try output.show(document, text: document.text)
  }
}

private struct ImageListDocument: Encodable {
  var images: [ImageDocument]

  var text: String {
    var table = Table("IMAGE", "SIZE", "LEAST MEMORY", "KERNEL", "DIRECTORY")
    for image in images {
      table.add(
        image.name, Units.bytes(image.sizeBytes), Units.bytes(image.minimumMemoryBytes), image.kernel,
        image.directory)
    }
    return table.isEmpty ? "no image; “sfctl image build mini” builds one" : table.text
  }
}
