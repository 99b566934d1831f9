import ArgumentParser
import Foundation
import Wire

/// `--disk`: the size of an empty disk, or the path of a file that it begins as.
struct DiskArgument: ExpressibleByArgument {
  var request: Snowfork_V1_DiskRequest

  init?(argument: String) {
    guard !argument.isEmpty else { return nil }
    if !argument.contains("/"), let size = MemorySize(argument: argument) {
      request = .with { $0.virtualBytes = size.bytes }
      return
    }
    let directory = FileManager.default.currentDirectoryPath
    let path = argument.hasPrefix("/") ? argument : directory + "/" + argument
    request = .with { $0.path = URL(fileURLWithPath: path).standardizedFileURL.path }
  }
}
